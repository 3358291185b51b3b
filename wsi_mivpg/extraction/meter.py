"""What a run's time goes to: reading, encoding, writing, waiting. Numbers only."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Adds up seconds by kind, from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._n_encoding = 0
        self._n_tiles = 0
        self._encoding_since = 0.0
        self._first_encoded: float | None = None
        self._last_encoded = 0.0

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Add the time inside to a kind."""
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._guard:
                self._seconds[kind] += time.perf_counter() - began

    @contextmanager
    def encoding(self, n_tiles: int) -> Iterator[None]:
        """Add the time inside to "encode", and to "encoder busy" only once where several batches run side by side."""
        began = time.perf_counter()
        with self._guard:
            if self._n_encoding == 0:
                self._encoding_since = began
            self._n_encoding += 1
            self._first_encoded = self._first_encoded or began
        try:
            yield
        finally:
            now = time.perf_counter()
            with self._guard:
                self._n_encoding -= 1
                self._n_tiles += n_tiles
                self._seconds["encode"] += now - began
                self._last_encoded = now
                if self._n_encoding == 0:
                    self._seconds["encoder busy"] += now - self._encoding_since

    @property
    def n_tiles(self) -> int:
        """Tiles encoded so far."""
        return self._n_tiles

    @property
    def encode_phase_s(self) -> float:
        """Seconds from the first batch's encoding to the end of the last one's; 0 before any."""
        return 0.0 if self._first_encoded is None else max(0.0, self._last_encoded - self._first_encoded)

    def seconds(self, kind: str) -> float:
        """Return the seconds of a kind so far: "read", "encode", "encoder busy", "write", "wait for slides" …"""
        with self._guard:
            return self._seconds[kind]
