"""An encoder alone, on tiles that lie in memory: the shared network, or with `--ours` one of `encoders`.

    python -m extract_peers.run_encoder SLIDE... --out OUT [--ours efficientnet] [--threads 2] [--mallopt]

`--threads` calls it from so many threads at once, each with its share of the cores, as an engine may. `--mallopt`
raises glibc's thresholds from inside the process, and `--arenas 1` makes all threads share the main heap.
"""

import argparse
import ctypes
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extract_peers.clock import Clock, resident_mb
from extract_peers.shared import INPUT_PX, TILE_PX, Job, TimedNetwork, job_of, parser, transform_of

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
GIGABYTE = 1 << 30


def main() -> None:
    """Encode for a while and write how fast."""
    given = arguments()
    set_allocator(given.mallopt, given.arenas)
    job = job_of(given)
    tiles = tiles_in_memory(job.slides, given.tiles, INPUT_PX if given.ours == "vit" else TILE_PX)
    encode, inputs = ours(given, tiles) if given.ours else shared(job, tiles)
    loaded_mb = resident_mb()
    per_thread = max(1, torch.get_num_threads() // given.threads)
    with ThreadPoolExecutor(given.threads, initializer=torch.set_num_threads, initargs=(per_thread,)) as pool:
        clock = encode_for(given.warm_s, pool if given.threads > 1 or given.off_main else None, encode, inputs, given)
        clock = encode_for(given.seconds, pool if given.threads > 1 or given.off_main else None, encode, inputs, given)
    clock.write(job.out / "figures.json", loaded_mb=loaded_mb, version=torch.__version__)


def arguments() -> argparse.Namespace:
    """Return the command line."""
    added = parser(__doc__)
    added.formatter_class = argparse.RawDescriptionHelpFormatter
    added.add_argument("--ours", choices=("efficientnet", "vit"))
    added.add_argument("--device", default="cpu", help="of --ours")
    added.add_argument("--threads", type=int, default=1)
    added.add_argument("--off-main", action="store_true", help="call from a thread that is not the main one")
    added.add_argument("--mallopt", action="store_true")
    added.add_argument("--arenas", type=int)
    added.add_argument("--tiles", type=int, default=256)
    added.add_argument("--warm-s", type=float, default=2.0)
    added.add_argument("--seconds", type=float, default=8.0)
    return added.parse_args()


def set_allocator(thresholds: bool, arenas: int | None) -> None:
    """Tell glibc to keep freed memory instead of giving it back."""
    libc = ctypes.CDLL(None)
    if thresholds:
        assert libc.mallopt(M_MMAP_THRESHOLD, GIGABYTE)
        assert libc.mallopt(M_TRIM_THRESHOLD, GIGABYTE)
    if arenas:
        assert libc.mallopt(M_ARENA_MAX, arenas)


def tiles_in_memory(slides: tuple[Path, ...], count: int, side_px: int) -> np.ndarray:
    """Return uint8 (count, side, side, 3) from the middle of the slides; noise where none is given."""
    if not slides:
        return np.random.default_rng(0).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
    from wsi_mivpg.slides import open_slide

    found = []
    for path in slides:
        with open_slide(path) as slide:
            step, across = side_px * 0.5 / slide.mpp, int((count / len(slides)) ** 0.5)
            left, top = (length / 2 - across / 2 * step for length in slide.size_px)
            corners = itertools.product(range(across), range(across))
            found += [slide.read_region(left + c * step, top + r * step, side_px, 0.5) for r, c in corners]
    return np.stack([found[i % len(found)] for i in range(count)])


def shared(job: Job, tiles: np.ndarray) -> tuple[Any, Any]:
    """Return the peers' network, and batches ready for it."""
    network, transform = TimedNetwork(job), transform_of(job)
    pixels = torch.stack([transform(tile) for tile in tiles])
    if job.channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    return torch.inference_mode()(network), pixels.split(job.batch)


def ours(given: argparse.Namespace, tiles: np.ndarray) -> tuple[Any, Any]:
    """Return the package's encoder, and batches of uint8 ready for it."""
    from extract_peers import encoders

    os.environ.pop("EXTRACT_TIMES", None)
    batches = [tiles[i : i + given.batch] for i in range(0, len(tiles), given.batch)]
    return getattr(encoders, given.ours)(device=given.device).encode, batches


def encode_for(
    seconds: float, pool: ThreadPoolExecutor | None, encode: Any, inputs: Any, given: argparse.Namespace
) -> Clock:
    """Encode the batches again and again, and at least once, until the time is over."""
    clock = Clock()
    until = time.perf_counter() + seconds

    def work(_: int) -> None:
        for pixels in itertools.cycle(inputs):
            with clock.batch(len(pixels)):
                encode(pixels)
            if time.perf_counter() > until:
                return

    if pool is None:
        work(0)
    else:
        list(pool.map(work, range(given.threads)))
    return clock


if __name__ == "__main__":
    main()
