"""Kill extractions at random moments and see what is left: `python -m tests.extraction.crash --kills 1000`.

After each kill, whatever has a bag's name must be that bag, byte for byte; after a last undisturbed run all must be.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[2]
DELAY_S = 0.02


def write_slides(folder: Path, count: int) -> Path:
    """Write small tiled slides of speckled tissue, each another."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(-20, 20, (768, 768, 1))
        pixels = np.clip(np.array([170, 90, 160]) + noise, 0, 255).astype(np.uint8)
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
    return folder


def start(slides: Path, out: Path, delay_s: float = DELAY_S, **how) -> subprocess.Popen:
    """Begin an extraction in a process of its own."""
    command = [sys.executable, "-m", "tests.extraction.driver", slides, out, str(delay_s)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, **how)


def bags(out: Path) -> dict[str, bytes]:
    """Return the bytes of everything that has a bag's name."""
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.h5")) if not path.name.startswith(".")}


def kill_and_compare(slides: Path, work: Path, kills: int, seed: int) -> int:
    """Kill runs until `kills` were killed, each output folder until it is complete; return how many bags survived.

    Raises:
        AssertionError: a bag differs from the one of an undisturbed run.
    """
    random_moment = random.Random(seed)
    began = time.monotonic()
    assert start(slides, work / "whole").wait() == 0
    duration_s = time.monotonic() - began
    whole = bags(work / "whole")
    assert len(whole) == len(list(slides.iterdir()))
    survived, folder, done = 0, 0, 0
    while done < kills:
        out = work / f"cut{folder}"
        run = start(slides, out)
        try:
            run.wait(random_moment.uniform(0.1, duration_s))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            done += 1
        left = bags(out) if out.exists() else {}
        assert left.items() <= whole.items(), f"kill {done}: a bag differs"
        survived += len(left)
        if len(left) == len(whole):
            folder += 1
    last = work / f"cut{folder}"
    assert start(slides, last).wait() == 0
    assert bags(last) == whole
    assert not list(last.glob(".*.tmp")), "leftovers of killed runs"
    return survived


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        n_bags = kill_and_compare(write_slides(place / "slides", 6), place, arguments.kills, arguments.seed)
    print(f"{arguments.kills} kills; {n_bags} bags looked at after them, all as undisturbed")
