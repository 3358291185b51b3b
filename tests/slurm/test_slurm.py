"""Under a real Slurm on this machine: jobs that are killed or run out of memory end as undisturbed ones do.

Skipped where Slurm is not installed (`apt-get install slurm-wlm munge`) or where this is not root, whom slurmd needs.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import yaml
from safetensors.torch import load_file

from tests.slurm.encoder import NAME
from tests.training.test_train import assert_same_weights
from tests.training.tiny_cohort import tiny_recipe, write_cases
from wsi_mivpg.cohorts.case import write_manifest
from wsi_mivpg.training.recipe import as_yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "pipelines" / "workflow"
BIN = Path(sys.executable).parent
MISSING = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd and munged are started as root"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a Slurm of two nodes; return the environment in which commands find it, and stop it afterwards."""
    folder = tmp_path_factory.mktemp("cluster")
    found = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "SLURM_TEST_PORT": str(free_ports(3)),
    }
    script = ROOT / "tests" / "slurm" / "cluster.sh"
    try:
        subprocess.run([script, "start", folder], env=found, check=True, timeout=300)
        yield {**found, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}:{found['PATH']}"}
    finally:
        subprocess.run([script, "stop", folder], env=found, check=True, timeout=300)


def free_ports(count: int) -> int:
    """Return the first of so many neighbouring ports that nobody listens on."""
    for first in range(12000, 20000, count):  # train.sbatch takes ports above
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def write_slides(folder: Path) -> None:
    """Write nine slides, three a shard; the last one is dark, which the encoder takes much memory for."""
    folder.mkdir(parents=True)
    for number in range(9):
        noise = np.random.default_rng(number).integers(-20, 20, (768, 768, 1))
        colour = (90, 20, 80) if number == 8 else (170, 90, 160)
        pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        tifffile.imwrite(
            folder / f"s{number}.tiff",
            pixels,
            photometric="rgb",
            tile=(256, 256),
            compression="jpeg",
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
            metadata=None,
        )


def bags(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all bags, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("s*.h5") if not path.name.startswith(".")}


def jobs(environment: dict[str, str], *, states: str = "all") -> list[dict[str, str]]:
    """Return Slurm's jobs: id, state, memory, and the shard in the comment that the executor gives."""
    done = subprocess.run(
        ["squeue", "--noheader", f"--states={states}", "--format=%i|%T|%m|%k"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    names = ("id", "state", "memory", "comment")
    return [dict(zip(names, line.split("|"), strict=True)) for line in done.stdout.splitlines()]


def running_job(environment: dict[str, str], shard: str) -> str:
    """Return the id of the job that does a shard now."""
    return next(job["id"] for job in jobs(environment, states="RUNNING") if shard in job["comment"])


def wait_for(path: Path, run: subprocess.Popen[str]) -> None:
    """Wait until a file is there."""
    began = time.monotonic()
    while not path.exists():
        assert run.poll() is None, "the workflow ended too early"
        assert time.monotonic() - began < 600, f"{path} did not come"
        time.sleep(0.1)


def test_jobs_that_are_cancelled_killed_or_out_of_memory_end_as_undisturbed_ones(
    environment: dict[str, str], tmp_path: Path
) -> None:
    write_slides(tmp_path / "slides")
    rows = [f"s{number},slides/s{number}.tiff,c{number}" for number in range(9)]
    (tmp_path / "cohort.csv").write_text("\n".join(["slide_id,path,case_id", *rows]))
    step = {"encoder": NAME, "slides_per_job": 3, "threads": 1, "mem_mb": 800, "runtime_min": 10}
    config = {
        "cohort": "cohort.csv",
        "model": "demo",
        "most_mem_mb": 3000,
        "extract": {**step, "options": ["--batch-size", 8]},
        "report": {"split": None},  # the cohort states none
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["snakemake", "-s", WORKFLOW / "Snakefile", "--directory", tmp_path, "--until", "collect"]
    command += ["--configfile", tmp_path / "config.yaml", "--workflow-profile", WORKFLOW / "profiles" / "slurm"]
    command += [
        "--slurm-status-command",
        "squeue",
        "--slurm-no-account",
        "--slurm-init-seconds-before-status-checks",
        2,
    ]
    with (tmp_path / "said").open("w") as said:
        run = subprocess.Popen([*map(str, command)], env=environment, stdout=said, stderr=subprocess.STDOUT, text=True)
        try:
            wait_for(tmp_path / "bags" / "0001" / "s0.h5", run)
            before = (tmp_path / "bags" / "0001" / "s0.h5").stat()
            subprocess.run(["scancel", running_job(environment, "0001")], env=environment, check=True)
            wait_for(tmp_path / "bags" / "0002" / "s3.h5", run)
            kill_processes(tmp_path, "0002")
            assert run.wait(900) == 0, (tmp_path / "said").read_text()
        finally:
            run.kill()
            run.wait()

    after = jobs(environment)
    of = {shard: [job for job in after if shard in job["comment"]] for shard in ("0001", "0002", "0003")}
    assert [sorted(job["state"] for job in tried) for tried in of.values()] == [
        ["CANCELLED", "COMPLETED"],
        ["COMPLETED", "FAILED"],
        ["COMPLETED", "FAILED"],
    ]
    assert {job["state"]: job["memory"] for job in of["0003"]} == {"FAILED": "800M", "COMPLETED": "1600M"}
    assert "memory limit" in (tmp_path / "said").read_text()
    # What was whole when its job was cancelled was kept, and all is as if nothing had happened.
    kept = (tmp_path / "bags" / "0001" / "s0.h5").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    undisturbed = [
        "extract",
        tmp_path / "cohort.csv",
        "--out",
        tmp_path / "alone",
        "--encoder",
        NAME,
        "--batch-size",
        8,
    ]
    subprocess.run([BIN / "wsi-mivpg", *map(str, undisturbed)], env=environment, check=True, capture_output=True)
    assert bags(tmp_path / "bags") == bags(tmp_path / "alone")
    assert len((tmp_path / "cohort.jsonl").read_text().splitlines()) == 9


def test_two_nodes_train_the_same_weights_as_one_process_with_twice_the_batch(
    environment: dict[str, str], tmp_path: Path
) -> None:
    write_manifest(tmp_path / "cases.jsonl", write_cases(tmp_path / "bags", train=8))
    sizes = tiny_recipe(tmp_path / "base").model.mivpg.model_dump()
    recipe = tiny_recipe(
        tmp_path / "base",
        data={"manifest": str(tmp_path / "cases.jsonl")},
        model={"mivpg": {**sizes, "hidden_dropout_prob": 0.0}},
        optim={"steps": 3, "batch_size": 2, "save_every": 3},
    )
    (tmp_path / "recipe.yaml").write_text(as_yaml(recipe))
    template = [ROOT / "pipelines" / "slurm" / "train.sbatch", tmp_path / "recipe.yaml"]
    sizes_of_job = ["--nodes", 2, "--cpus-per-task", 1, "--mem", "4G", "--time", 10, "--output", tmp_path / "said"]
    submitted = ["sbatch", "--wait", *sizes_of_job, *template, tmp_path / "two"]
    together = {**environment, "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run([*map(str, submitted)], env=together, check=False, timeout=900)
    said = (tmp_path / "said").read_text()
    assert done.returncode == 0, said
    alone = ["train", tmp_path / "recipe.yaml", "optim.batch_size=4", "--out", tmp_path / "one"]
    subprocess.run([BIN / "wsi-mivpg", *map(str, alone)], env=environment, check=True, capture_output=True)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert_same_weights(one, two, 1e-4)


def kill_processes(folder: Path, shard: str) -> None:
    """Kill, with -9, all processes that extract a shard of the workflow in a folder."""
    found = [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(folder) and any(f"shards/{shard}.csv" in word for word in process.info["cmdline"])
    ]
    assert found
    for process in found:
        process.kill()
