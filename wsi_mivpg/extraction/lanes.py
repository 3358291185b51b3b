"""Which threads read tiles and which encode them, and how many tiles are one batch.

On a processor the same threads do both, one batch after the other, each with its share of the cores: then no core waits
for another and none is asked for twice. On an accelerator, many threads read and two feed it in turn.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.extraction.memory import keep_freed_memory
from wsi_mivpg.slides.readers.base import Pixels

CPU_BATCH_SIZE = 8
"""Small, so that a batch's activations stay in the processor's caches (docs/extraction.md)."""
_MOST_CPU_LANES = 16
_MOST_READERS = 32
_FEEDERS = 2


class Lanes:
    """Threads for one run.

    Attributes:
        batch_size: tiles in every batch.
        buffers: batches in flight at most.
        reads_and_encodes: whether the same threads do both.
        n_encoding: batches that may be encoded side by side.
    """

    def __init__(self, encoders: Sequence[TileEncoder], batch_size: int, threads: int | None = None) -> None:
        cores = threads or len(os.sched_getaffinity(0))
        devices = {str(getattr(encoder, "device", "cpu")) for encoder in encoders}
        self.batch_size = batch_size
        self.reads_and_encodes = devices == {"cpu"}
        self._is_torch = any(hasattr(encoder, "device") for encoder in encoders)
        self._torch_threads: int | None = None
        self._feeders: ThreadPoolExecutor | None = None
        if self.reads_and_encodes:
            n_lanes = min(_MOST_CPU_LANES, cores)
            self.n_encoding, self.buffers = n_lanes, 2 * n_lanes
            self._readers = self._pool(n_lanes, max(1, cores // n_lanes))
        else:
            self.n_encoding, self.buffers = 1, _FEEDERS + 2
            self._readers = ThreadPoolExecutor(min(_MOST_READERS, cores), thread_name_prefix="read")
            self._feeders = ThreadPoolExecutor(_FEEDERS, thread_name_prefix="feed")

    def new_buffer(self, shape: tuple[int, int, int, int]) -> Pixels:
        """Return room for a batch of uint8, from which an accelerator can copy by itself if there is one."""
        if self.reads_and_encodes:
            return np.empty(shape, dtype=np.uint8)
        import torch

        pinned: Any = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        pixels: Pixels = pinned.numpy()
        return pixels

    def read(self, task: Callable[[], None]) -> None:
        """Run a task that reads, in its turn."""
        self._readers.submit(task)

    def encode(self, task: Callable[[], None]) -> None:
        """Run a task that encodes: at once in the calling thread, or in the threads that feed the accelerator."""
        if self._feeders is None:
            task()
        else:
            self._feeders.submit(task)

    def close(self) -> None:
        """End all threads; tasks that have not begun never do."""
        for pool in (self._readers, self._feeders):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
        if self._torch_threads is not None:
            import torch

            torch.set_num_threads(self._torch_threads)

    def _pool(self, n_lanes: int, cores_each: int) -> ThreadPoolExecutor:
        if not self._is_torch:
            return ThreadPoolExecutor(n_lanes, thread_name_prefix="lane")
        import torch

        keep_freed_memory()
        self._torch_threads = torch.get_num_threads()
        set_threads = torch.set_num_threads
        return ThreadPoolExecutor(n_lanes, "lane", initializer=set_threads, initargs=(cores_each,))
