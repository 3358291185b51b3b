"""Many regions of one slide in batches: read ahead by threads, in order, each compressed tile decoded once.

Memory is bounded: at most `BATCHES_AHEAD` batches of regions, and decoded tiles only between the first and the last
region that needs them (for a grid in rows, about one row of regions).
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.readers.base import Pixels
from wsi_mivpg.slides.reading import Slide

BATCHES_AHEAD = 3
_REGIONS_PER_TASK = 8
_MOST_THREADS = 16


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """Consecutive regions of a stream.

    Attributes:
        pixels: uint8 (N, side, side, 3); a region that cannot be read is white here and named in `failures`.
        start: position of the first region among all corners.
        failures: position among all corners -> why that region cannot be read.
    """

    pixels: Pixels
    start: int
    failures: dict[int, str]

    def __len__(self) -> int:
        return len(self.pixels)


def stream_regions(
    slide: Slide,
    corners: npt.NDArray[np.int64],
    size_px: int,
    mpp: float,
    *,
    batch_size: int = 32,
    threads: int | None = None,
) -> Iterator[RegionBatch]:
    """Yield square regions in the order of `corners`.

    Args:
        slide: an open slide.
        corners: (N, 2) int64, level-0 px (x, y); rows from top to bottom keep the fewest tiles in memory.
        size_px: side of a region in pixels at `mpp`.
        mpp: microns per pixel of the regions.
        batch_size: regions in a batch; the last one may be smaller.
        threads: decoding threads; default one for each core, at most 16.
    """

    def read(index: int, out: Pixels) -> Pixels:
        return slide.read_region(float(corners[index, 0]), float(corners[index, 1]), size_px, mpp, out=out)

    with slide.expecting(corners, size_px, mpp):
        yield from in_batches(read, len(corners), size_px, batch_size=batch_size, threads=threads)


def in_batches(
    read: Callable[[int, Pixels], Pixels], count: int, size_px: int, *, batch_size: int, threads: int | None = None
) -> Iterator[RegionBatch]:
    """Yield what `read` gives for 0 to `count - 1`, in order, read ahead by threads.

    Args:
        read: gives uint8 (size_px, size_px, 3) of an index, in the memory that it is handed or not; its SlideError
            becomes that region's failure.
        count: regions in total.
        size_px: side of a region.
        batch_size: regions in a batch; the last one may be smaller.
        threads: reading threads; default one for each core, at most 16.
    """
    threads = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    starts = iter(range(0, count, batch_size))
    with ThreadPoolExecutor(threads, thread_name_prefix="tiles") as pool:
        ahead: deque[tuple[RegionBatch, list[Future[None]]]] = deque()

        def submit_next() -> None:
            start = next(starts, None)
            if start is None:
                return
            length = min(batch_size, count - start)
            batch = RegionBatch(np.empty((length, size_px, size_px, 3), dtype=np.uint8), start, {})
            tasks = [pool.submit(_fill, batch, first, read) for first in range(0, length, _REGIONS_PER_TASK)]
            ahead.append((batch, tasks))

        try:
            for _ in range(BATCHES_AHEAD):
                submit_next()
            while ahead:
                batch, tasks = ahead.popleft()
                for task in tasks:
                    task.result()
                submit_next()
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fill(batch: RegionBatch, first: int, read: Callable[[int, Pixels], Pixels]) -> None:
    """Read up to `_REGIONS_PER_TASK` regions into the batch; note those that cannot be read."""
    for i in range(first, min(first + _REGIONS_PER_TASK, len(batch))):
        try:
            region = read(batch.start + i, batch.pixels[i])
            if not np.shares_memory(region, batch.pixels[i]):
                batch.pixels[i] = region
        except SlideError as error:
            batch.pixels[i] = 255
            batch.failures[batch.start + i] = str(error)
