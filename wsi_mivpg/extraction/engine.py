"""The one encode loop of the package: tiles of many slides, read ahead by threads, encoded in batches of one shape.

Batches span slides, so that the encoder never waits for a slide to end. What is read and where bags are written is not
decided here: sources come in, features go out.

Memory is bounded by the batches in flight, the decoded tiles that readers hold between uses, and the features of the
slides in flight, which beyond `_IN_MEMORY_BYTES` lie in an unnamed file.
"""

import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.errors import SlideError
from wsi_mivpg.extraction.lanes import Lanes
from wsi_mivpg.extraction.meter import Meter
from wsi_mivpg.extraction.sources import Source, Tiles
from wsi_mivpg.slides.readers.base import Pixels

_OPENED_AHEAD = 2
_READS_PER_TASK = 8
_IN_MEMORY_BYTES = 1 << 28
_WHITE = 255
_PATIENCE_S = 0.1
T = TypeVar("T", covariant=True)


class _Gettable(Protocol[T]):
    def get(self, block: bool = True, timeout: float | None = None) -> T: ...


@dataclass(eq=False)
class SlideTask:
    """One slide on its way through the engine.

    Attributes:
        source: the open input.
        tiles: what is read of it.
        wanted: positions of the encoders whose bag is wanted.
        features: by position of the encoder, float16 (N, D).
        is_read: bool (N,); false where a tile cannot be read.
        last_error: of those tiles, "" where all can be read.
        is_cut_off: whether the file itself could not be reached for some of them (a lost mount, a network).
        n_left: tiles that are not encoded yet.
        started: when it was opened, by `time.monotonic`.
    """

    source: Source
    tiles: Tiles
    wanted: tuple[int, ...]
    started: float
    features: dict[int, npt.NDArray[np.float16]] = field(default_factory=dict)
    is_read: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    last_error: str = ""
    is_cut_off: bool = False
    n_left: int = 0


@dataclass(frozen=True)
class _Segment:
    """Tiles `first` to `first + count - 1` of a slide, at `offset` in a batch."""

    task: SlideTask
    first: int
    count: int
    offset: int


@dataclass(eq=False)
class _Batch:
    """A buffer uint8 (B, side, side, 3) and what is in it."""

    pixels: Pixels
    segments: list[_Segment] = field(default_factory=list)
    n_filled: int = 0
    n_reads_left: int = 0


def run_engine(
    tasks: Iterator[SlideTask],
    encoders: Sequence[TileEncoder],
    lanes: Lanes,
    tile_px: int,
    finish: Callable[[SlideTask], None],
    meter: Meter,
    spool: Path,
    on_tiles: Callable[[SlideTask], None] = lambda task: None,
) -> None:
    """Encode all tiles of all tasks.

    Args:
        tasks: gives slides; run ahead in a thread of its own.
        encoders: all take tiles of `tile_px`.
        lanes: which threads read and encode, and how many tiles at once.
        tile_px: side of the tiles as they are read.
        finish: called for each slide whose features are complete, one after the other in a thread of its own.
        meter: told what time goes to.
        spool: folder for features that are too many for memory.
        on_tiles: called after each batch for each slide in it.

    Raises:
        Whatever `tasks`, `finish` or an encoder raised first; all threads have ended then.
    """
    with _Run(encoders, lanes, tile_px, finish, meter, spool, on_tiles) as run:
        run.go(tasks)


class _Run:
    """The state of one `run_engine`; leaving it ends all threads and closes what is open."""

    def __init__(
        self,
        encoders: Sequence[TileEncoder],
        lanes: Lanes,
        tile_px: int,
        finish: Callable[[SlideTask], None],
        meter: Meter,
        spool: Path,
        on_tiles: Callable[[SlideTask], None],
    ) -> None:
        self._encoders = encoders
        self._lanes = lanes
        self._finish = finish
        self._meter = meter
        self._spool = spool
        self._on_tiles = on_tiles
        self._guard = threading.Lock()
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._free: queue.SimpleQueue[Pixels] = queue.SimpleQueue()
        for _ in range(lanes.buffers):
            self._free.put(lanes.new_buffer((lanes.batch_size, tile_px, tile_px, 3)))
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="opener")
        self._opened: queue.Queue[SlideTask | None] = queue.Queue(_OPENED_AHEAD)
        self._unfinished: set[SlideTask] = set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._to_write = threading.BoundedSemaphore(_OPENED_AHEAD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._stopped.set()
        self._lanes.close()
        for pool in (self._opener, self._writer):
            pool.shutdown(wait=True, cancel_futures=True)
        for task in self._unfinished:
            task.source.close()

    def go(self, tasks: Iterator[SlideTask]) -> None:
        self._opener.submit(self._guarded(self._open_all, tasks))
        batch: _Batch | None = None
        while (task := self._next_task()) is not None:
            self._make_room(task)
            if not len(task.tiles):
                self._hand_over(task)
            first = 0
            while first < len(task.tiles):
                batch = batch or self._new_batch()
                first += self._add(batch, task, first)
                if batch.n_filled == self._lanes.batch_size:
                    self._submit(batch)
                    batch = None
        if batch is not None:
            batch.pixels[batch.n_filled :] = _WHITE  # one shape for all batches
            self._submit(batch)
        for _ in range(self._lanes.buffers):  # all are back when all is encoded
            self._patiently(self._free)
        self._writer.shutdown(wait=True)
        self._raise_failure()

    def _open_all(self, tasks: Iterator[SlideTask]) -> None:
        for task in tasks:
            with self._guard:
                self._unfinished.add(task)
            if not self._put(task):
                return
        self._put(None)

    def _put(self, task: SlideTask | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._opened.put(task, timeout=_PATIENCE_S)
                return True
            except queue.Full:
                continue
        return False

    def _next_task(self) -> SlideTask | None:
        with self._meter.timed("wait for slides"):
            return self._patiently(self._opened)

    def _new_batch(self) -> _Batch:
        with self._meter.timed("wait for encoder"):
            return _Batch(self._patiently(self._free))

    def _patiently(self, waited_for: _Gettable[T]) -> T:
        """Get from a queue, and look up from time to time whether something has failed."""
        while True:
            self._raise_failure()
            try:
                return waited_for.get(timeout=_PATIENCE_S)
            except queue.Empty:
                continue

    def _make_room(self, task: SlideTask) -> None:
        count = len(task.tiles)
        task.n_left = count
        task.is_read = np.ones(count, dtype=np.bool_)
        for position in task.wanted:
            task.features[position] = _features(count, self._encoders[position].spec.dim, self._spool)

    def _add(self, batch: _Batch, task: SlideTask, first: int) -> int:
        """Put tiles of a slide, from `first` on, into a batch until it is full; return how many."""
        count = min(len(task.tiles) - first, self._lanes.batch_size - batch.n_filled)
        batch.segments.append(_Segment(task, first, count, batch.n_filled))
        batch.n_filled += count
        return count

    def _submit(self, batch: _Batch) -> None:
        """Have a batch read, in parts unless the same threads read and encode, and then encoded."""
        step = batch.n_filled if self._lanes.reads_and_encodes else _READS_PER_TASK
        starts = range(0, batch.n_filled, step)
        batch.n_reads_left = len(starts)
        for start in starts:
            self._lanes.read(self._guarded(self._read, batch, start, min(start + step, batch.n_filled)))

    def _read(self, batch: _Batch, start: int, stop: int) -> None:
        with self._meter.timed("read"):
            for segment in batch.segments:
                low, high = max(start, segment.offset), min(stop, segment.offset + segment.count)
                for place in range(low, high):
                    _read_tile(segment.task, segment.first + place - segment.offset, batch.pixels[place])
        with self._guard:
            batch.n_reads_left -= 1
            is_last = batch.n_reads_left == 0
        if is_last:
            self._lanes.encode(self._guarded(self._encode, batch))

    def _encode(self, batch: _Batch) -> None:
        with self._meter.encoding(batch.n_filled):
            for position in sorted({position for segment in batch.segments for position in segment.task.wanted}):
                _distribute(self._encoders[position].encode(batch.pixels), position, batch.segments)
        for segment in batch.segments:
            with self._guard:
                segment.task.n_left -= segment.count
                is_complete = segment.task.n_left == 0
            self._on_tiles(segment.task)
            if is_complete:
                self._hand_over(segment.task)
        self._free.put(batch.pixels)

    def _hand_over(self, task: SlideTask) -> None:
        """Let the writer finish a slide; waits where it is behind, so that finished features do not pile up."""
        while not self._to_write.acquire(timeout=_PATIENCE_S):
            if self._stopped.is_set():
                return
        self._writer.submit(self._guarded(self._write, task))

    def _write(self, task: SlideTask) -> None:
        try:
            with self._meter.timed("write"):
                self._finish(task)
        finally:
            self._to_write.release()
            with self._guard:
                self._unfinished.discard(task)
            task.source.close()

    def _guarded(self, function: Callable[..., None], *arguments: object) -> Callable[[], None]:
        """Return a call for another thread, whose error stops the run."""

        def run() -> None:
            if self._stopped.is_set():
                return
            try:
                function(*arguments)
            except BaseException as error:
                with self._guard:
                    self._error = self._error or error
                self._stopped.set()

        return run

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise self._error


def _read_tile(task: SlideTask, index: int, out: Pixels) -> None:
    try:
        pixels = task.tiles.read(index, out)
        if not np.shares_memory(pixels, out):
            out[...] = pixels
    except SlideError as error:
        out[...] = _WHITE
        task.is_read[index] = False
        task.last_error = str(error)
        # The system's errors have a number; what decoders find wrong in a file has none.
        if getattr(error.__cause__, "errno", None) or not isinstance(task.source.given.source, Path):
            task.is_cut_off = True


def _distribute(features: npt.NDArray[np.float16], position: int, segments: Sequence[_Segment]) -> None:
    for segment in segments:
        if position in segment.task.wanted:
            rows = features[segment.offset : segment.offset + segment.count]
            segment.task.features[position][segment.first : segment.first + segment.count] = rows


def _features(count: int, dim: int, spool: Path) -> npt.NDArray[np.float16]:
    """Return room for float16 (count, dim): in memory, or in a file without name where that is much."""
    n_bytes = 2 * count * dim
    if n_bytes <= _IN_MEMORY_BYTES:
        return np.empty((count, dim), dtype=np.float16)
    with tempfile.TemporaryFile(dir=spool) as unnamed:
        os.posix_fallocate(unnamed.fileno(), 0, n_bytes)  # or a full disk would end the process later, by a signal
        return np.memmap(unnamed, dtype=np.float16, mode="r+", shape=(count, dim))
