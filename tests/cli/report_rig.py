"""Reports by a tiny model in processes that can be killed: `python -m tests.cli.report_rig crash memory`.

The heavy imports happen once: each run is a fork of this process. Prints one line of JSON.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.provenance import PROVENANCE
from tests.tiny_captioner import MIVPG, tiny_config, write_tiny_language_model
from wsi_mivpg.bags import write_bag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cli.main import main as program
from wsi_mivpg.cohorts.case import Case, write_manifest
from wsi_mivpg.reports import Report

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("What?", "Where?")


def write_model(folder: Path, feature_dim: int = 12, **changes: object) -> Path:
    """Write a tiny model with its base, and return its folder."""
    write_tiny_language_model(folder / "base")
    mivpg = {**MIVPG, "input_dim": feature_dim}
    config = tiny_config(folder / "base", mivpg=mivpg, feature_dim=feature_dim, **changes)
    SlideCaptioner.create(config).save_pretrained(folder / "model")
    return folder / "model"


def write_features(path: Path, features: np.ndarray, **changes: object) -> Path:
    """Write a bag with its tiles in a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coords = np.column_stack([np.arange(len(features)), np.zeros(len(features), np.int64)]) * 300
    made = {"slide_id": path.stem, "feature_dim": features.shape[1], **changes}
    provenance = replace(PROVENANCE, **made)
    write_bag(path, features.astype(np.float16), coords, np.ones(len(features), np.float32), provenance)
    return path


def begin(arguments: Sequence[object]) -> int:
    """Run the program in a fork of this process, silently, and return the fork's number."""
    child = os.fork()
    if child:
        return child
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        program([str(one) for one in arguments])
    except SystemExit as leaving:
        os._exit(int(leaving.code or 0))
    os._exit(99)


def ended(child: int) -> tuple[int, float]:
    """Wait for a fork; return its exit code, or minus the signal's number, and its peak memory in MB."""
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024


def whole_lines(out: Path) -> list[Report]:
    """Return the reports of a killed run's file; all that may be torn is what follows the last line's end."""
    path = out / "reports.jsonl"
    text = path.read_bytes() if path.exists() else b""
    return [Report.model_validate_json(line) for line in text.split(b"\n")[:-1]]


def crash(folder: Path, kills: int, seed: int = 0) -> dict[str, int]:
    """Kill runs at random moments, with one prompt and then the other into one folder, and look after each kill.

    Raises:
        AssertionError: a line is torn, or a case is lost, doubled, or has another text than an undisturbed run gives.
    """
    rng, moment = np.random.default_rng(0), random.Random(seed)
    model = write_model(folder, max_new_tokens=12)
    bags = [write_features(folder / "bags" / f"c{n}.h5", rng.normal(0, 3, (6, 12))) for n in range(6)]
    write_manifest(folder / "cases.jsonl", [Case(bag.stem, (), (bag,), (), None) for bag in bags])
    how = ["report", folder / "cases.jsonl", "--model", model, "--no-evidence", "--no-trust", "--batch-size", 2]

    def run(prompt: str, out: Path) -> int:
        return begin([*how, "--prompt", prompt, "--out", out])

    expected: dict[tuple[str | None, str], str] = {}
    began = time.monotonic()
    for number, prompt in enumerate(PROMPTS):
        assert ended(run(prompt, folder / f"whole{number}"))[0] == 0
        reports = whole_lines(folder / f"whole{number}")
        assert len(reports) == len(bags)
        expected |= {(prompt, one.case_id): one.text for one in reports}
    duration_s = (time.monotonic() - began) / len(PROMPTS)

    out, done, survived, torn, completed = folder / "cut", 0, 0, 0, 0
    there: set[str] = set()
    while done < kills:
        prompt = PROMPTS[completed % len(PROMPTS)]
        child = run(prompt, out)
        if done % 2:  # anywhere, which is mostly while it starts
            time.sleep(moment.uniform(0.1, 1.0) * duration_s)
        else:  # while it writes
            wait_for_change(out / "reports.jsonl", 2 * duration_s)
            time.sleep(moment.uniform(0, 0.1) * duration_s)
        os.kill(child, signal.SIGKILL)
        code, _ = ended(child)
        done += code == -signal.SIGKILL
        reports = whole_lines(out)
        ids = [one.case_id for one in reports]
        assert len(set(ids)) == len(ids), f"kill {done}: a case is there twice"
        assert there <= set(ids), f"kill {done}: a case is lost"
        there = set(ids)
        for one in reports:
            assert one.text == expected[one.prompt, one.case_id], f"kill {done}: another text"
            assert (out / f"{one.case_id}.html").exists()
        survived += len(reports)
        path = out / "reports.jsonl"
        torn += path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        completed += len(ids) == len(bags) and all(one.prompt == prompt for one in reports)
    assert ended(run(PROMPTS[0], out))[0] == 0
    assert {(one.prompt, one.case_id): one.text for one in whole_lines(out)} == {
        key: text for key, text in expected.items() if key[0] == PROMPTS[0]
    }
    assert not list(out.glob(".*.tmp")), "leftovers of killed runs"
    return {"kills": done, "looked_at": survived, "torn": torn, "completed": completed}


def wait_for_change(path: Path, at_most_s: float) -> None:
    """Return when a file was written, or so many seconds later."""

    def state() -> tuple[int, int] | None:
        return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None

    before, end = state(), time.monotonic() + at_most_s
    while state() == before and time.monotonic() < end:
        time.sleep(0.002)


def memory(folder: Path, counts: Sequence[int]) -> dict[str, float]:
    """Return the peak memory in MB of runs over so many cases of two slides and 1,000 instances, by count.

    The least of three runs: allocators and threads take some MB more by chance, never less.
    """
    rng = np.random.default_rng(0)
    model = write_model(folder, 256, max_new_tokens=8)
    pair = tuple(write_features(folder / f"{n}.h5", rng.normal(0, 1, (500, 256))) for n in "ab")
    peaks = {}
    for count in counts:
        manifest = folder / f"{count}.jsonl"
        write_manifest(manifest, [Case(f"case-{n}", (), pair, (), None) for n in range(count)])
        found = []
        for attempt in range(3):
            out = folder / f"out{count}-{attempt}"
            how = ["--model", model, "--out", out, "--no-evidence", "--no-trust", "--no-pages"]
            code, peak = ended(begin(["report", manifest, *how]))
            assert code == 0
            assert len(whole_lines(out)) == count
            found.append(peak)
        peaks[str(count)] = min(found)
    return peaks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("crash", "memory"), nargs="+")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counts", type=int, nargs="+", default=[32, 160])
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as place:
        result: dict[str, object] = {}
        if "crash" in arguments.what:
            result["crash"] = crash(Path(place, "crash"), arguments.kills, arguments.seed)
        if "memory" in arguments.what:
            result["memory"] = memory(Path(place, "memory"), arguments.counts)
    json.dump(result, sys.stdout)
