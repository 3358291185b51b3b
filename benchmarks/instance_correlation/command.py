"""Run what is not done yet, then write the tables and plots; see README.md.

python -m benchmarks.instance_correlation [--source rendered] [--quick] [--jobs 2] [--table]
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from .baselines import BASELINES, run_baseline
from .cohort import VirtualCase, compose
from .report import write_report_files
from .results import FOLDER, keep, result_path
from .systems import SYSTEMS
from .tiles import CRC5, SOURCES, WITHIN, tile_features
from .training import Budget, run_one


class Job(NamedTuple):
    """One training, or one baseline."""

    source: str
    system: str
    n_train: int
    seed: int


class Setting(NamedTuple):
    """What all jobs of a run have in common."""

    tiles: Path
    cell_side_tiles: int
    at_most: int | None
    largest: int
    n_test: int
    budget: Budget
    out: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the jobs that have no result yet, the same seeds and sizes of all systems next to each other."""
    asked = _parser().parse_args(arguments)
    budget = Budget(alignment_steps=asked.alignment_steps, steps=asked.steps)
    if asked.quick:
        asked.train, asked.seeds, asked.test = [24], [0], 12
        budget = Budget(alignment_steps=20, steps=20, warmup_steps=2)
    out = asked.out or (Path("out/instance_correlation_quick") if asked.quick else FOLDER)
    setting = Setting(
        asked.tiles, asked.cell_side_tiles, 8 if asked.quick else None, max(asked.train), asked.test, budget, out
    )
    jobs = [
        Job(asked.source, system, n_train, seed)
        for n_train in sorted(asked.train, reverse=True)
        for seed in asked.seeds
        for system in asked.systems
    ]
    jobs = [Job(asked.source, name, n_train, 0) for n_train in asked.train for name in BASELINES] + jobs
    waiting = [] if asked.table else [job for job in jobs if not is_done(job, setting)]
    print(f"{len(jobs)} jobs, {len(jobs) - len(waiting)} of them done; results in {out}", flush=True)
    if waiting:
        tile_features(asked.source, asked.tiles, setting.at_most)  # encoded once, before several processes want them
        _run(waiting, setting, asked.jobs)
    for path in write_report_files(out):
        print(f"wrote {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=SOURCES, default=WITHIN, help="of the tiles")
    parser.add_argument("--tiles", type=Path, default=CRC5, help="where crc5 is")
    parser.add_argument("--cell-side-tiles", type=int, default=1, help="2: four times as many tiles on the same maps")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS), help="comma-separated")
    parser.add_argument("--train", type=_numbers, default=[100, 300, 1000], help="numbers of training cases")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2])
    parser.add_argument("--test", type=int, default=480, help="test cases, the same for all")
    parser.add_argument("--alignment-steps", type=int, default=Budget().alignment_steps, help="of the adapter alone")
    parser.add_argument("--steps", type=int, default=Budget().steps, help="of adapter and language model together")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one thread each")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute, into a folder of its own")
    parser.add_argument("--table", action="store_true", help="write tables and plots of what is there, and run nothing")
    parser.add_argument("--out", type=Path, help="folder of the results")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _run(jobs: list[Job], setting: Setting, at_a_time: int) -> None:
    began = time.monotonic()
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", THP_MEM_ALLOC_ENABLE="1")
    # Spawned, so that torch reads the number of threads when it starts.
    with ProcessPoolExecutor(at_a_time, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(do, job, setting): job for job in jobs}
        for done, finished in enumerate(as_completed(running), 1):
            seconds = finished.result()
            left = (time.monotonic() - began) / done * (len(jobs) - done) / 60
            print(
                f"{done}/{len(jobs)} {' '.join(map(str, running[finished]))}: {seconds:.0f} s; {left:.0f} min left",
                flush=True,
            )


def is_done(job: Job, setting: Setting) -> bool:
    """Whether a job has a result; one of another budget or of other test cases is refused, for tables compare all."""
    path = _path_of(job, setting)
    if not path.is_file():
        return False
    kept = json.loads(path.read_text(encoding="utf-8"))
    budget = asdict(setting.budget)
    if (kept["n_test"], kept.get("budget", budget)) != (setting.n_test, budget):
        raise SystemExit(f"{path} was made with another budget or other test cases; remove it, or give another --out")
    return True


def do(job: Job, setting: Setting) -> float:
    """Do one job and keep its result; return the seconds."""
    began = time.monotonic()
    train, test = _cases(job.source, setting)
    if job.system in SYSTEMS:
        result = run_one(job.system, train[: job.n_train], test, job.source, job.seed, setting.budget)
    else:
        result = run_baseline(job.system, train[: job.n_train], test, job.source)
    keep(_path_of(job, setting), {**result, "source": _cohort_name(job.source, setting)})
    return time.monotonic() - began


def _path_of(job: Job, setting: Setting) -> Path:
    return result_path(setting.out, _cohort_name(job.source, setting), job.system, job.n_train, job.seed)


def _cohort_name(source: str, setting: Setting) -> str:
    side = setting.cell_side_tiles
    return source if side == 1 else f"{source}-{side}x{side}"


@functools.cache
def _cases(source: str, setting: Setting) -> tuple[list[VirtualCase], list[VirtualCase]]:
    """Compose once a process; smaller cohorts are the first cases of larger ones."""
    features = tile_features(source, setting.tiles, setting.at_most)
    side = setting.cell_side_tiles
    train = compose(source, features["train"], "train", setting.largest, cell_side_tiles=side)
    return train, compose(source, features["test"], "test", setting.n_test, cell_side_tiles=side)
