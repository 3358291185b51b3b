"""Decoded tiles that reads share: each is decoded once while a stream has announced more reads of it.

It knows neither files nor formats. Buffers of finished tiles are decoded into again: fresh memory costs a quarter of
the time of a decode in page faults.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from wsi_mivpg.slides.readers.base import Pixels

TileKey = tuple[int, int, int]
"""(level, row, column) of a compressed tile."""

_MOST_SPARE = 64


class TileCache:
    """Tiles in use, or between their first and their last announced use.

    Attributes:
        n_decoded: tiles decoded so far.
        most_held: the greatest number of decoded tiles held at once.
    """

    def __init__(self, decode: Callable[[TileKey, Pixels | None], Pixels]) -> None:
        """Decode with `decode(key, buffer)`, which may return `buffer`, an earlier result, filled anew."""
        self._decode = decode
        self._lock = threading.Lock()
        self._expected: dict[int, npt.NDArray[np.int32]] = {}
        self._tiles: dict[TileKey, Future[Pixels]] = {}
        self._users: dict[TileKey, int] = {}
        self._spare: list[Pixels] = []
        self.n_decoded = 0
        self.most_held = 0

    def announce(self, level: int, uses: npt.NDArray[np.int32]) -> None:
        """Expect that many more uses of each tile of a level; int32 (rows, columns)."""
        with self._lock:
            expected = self._expected.setdefault(level, np.zeros_like(uses))
            expected += uses

    def forget(self) -> None:
        """Drop all expectations and the tiles that nobody is using."""
        with self._lock:
            self._expected.clear()
            self._spare.clear()
            for key in [key for key in self._tiles if key not in self._users]:
                del self._tiles[key]

    @contextmanager
    def use(self, key: TileKey) -> Iterator[Pixels]:
        """Lend a tile, decoded here unless another user has decoded it; it must not be kept.

        Raises:
            what decoding raises, for every user that waits for it.
        """
        with self._lock:
            tile = self._tiles.get(key)
            is_mine = tile is None
            if tile is None:
                tile = self._tiles[key] = Future()
                self.n_decoded += 1
                self.most_held = max(self.most_held, len(self._tiles))
            self._users[key] = self._users.get(key, 0) + 1
            buffer = self._spare.pop() if is_mine and self._spare else None
        try:
            if is_mine:
                try:
                    tile.set_result(self._decode(key, buffer))
                except BaseException as error:
                    tile.set_exception(error)
            yield tile.result()
        finally:
            self._release(key, tile)

    def _release(self, key: TileKey, tile: Future[Pixels]) -> None:
        """Count a use down; keep the tile only where users or expected uses are left."""
        level, row, column = key
        with self._lock:
            self._users[key] -= 1
            if self._users[key] == 0:
                del self._users[key]
            expected = self._expected.get(level)
            left = 0
            if expected is not None and expected[row, column] > 0:
                expected[row, column] -= 1
                left = int(expected[row, column])
            if left or key in self._users:
                return
            del self._tiles[key]
            if tile.exception() is None and len(self._spare) < _MOST_SPARE:
                self._spare.append(tile.result())
