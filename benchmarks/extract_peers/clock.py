"""When batches go into an encoder and come out of it, from any thread. Standard library only."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Clock:
    """Counts the tiles of all batches, and the time during which at least one batch was in the encoder.

    It is made when the encoder is: what came before is start-up, what follows is work.
    """

    def __init__(self) -> None:
        self._made = time.perf_counter()
        self._guard = threading.Lock()
        self._tiles = 0
        self._batches = 0
        self._inside = 0
        self._busy_since = 0.0
        self._busy_s = 0.0
        self._first: float | None = None
        self._last = 0.0

    @contextmanager
    def batch(self, tiles: int) -> Iterator[None]:
        """Time one batch of so many tiles."""
        began = time.perf_counter()
        with self._guard:
            if self._inside == 0:
                self._busy_since = began
            self._inside += 1
            if self._first is None:
                self._first = began
        yield
        ended = time.perf_counter()
        with self._guard:
            self._inside -= 1
            self._tiles += tiles
            self._batches += 1
            self._last = ended
            if self._inside == 0:
                self._busy_s += ended - self._busy_since

    def figures(self) -> dict[str, float]:
        """Return the figures so far.

        `busy_s` is the time with a batch in the encoder, `encode_s` from the first batch in to the last one out,
        `work_s` since the clock was made.
        """
        return {
            "tiles": self._tiles,
            "batches": self._batches,
            "busy_s": self._busy_s,
            "encode_s": 0.0 if self._first is None else self._last - self._first,
            "work_s": time.perf_counter() - self._made,
        }

    def write(self, path: Path, **more: object) -> None:
        """Write the figures, and more of them, as JSON."""
        path.write_text(json.dumps({**self.figures(), **more}, indent=1), encoding="utf-8")


def resident_mb() -> float:
    """Return the memory of this process that is in RAM now, in megabytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no VmRSS")
