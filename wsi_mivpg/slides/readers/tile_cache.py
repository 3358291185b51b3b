"""Decoded tiles that a stream of reads has announced: each is decoded once and dropped after its last use.

It knows neither files nor formats.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from wsi_mivpg.slides.readers.base import Pixels

TileKey = tuple[int, int, int]
"""(level, row, column) of a compressed tile."""


class TileCache:
    """Counts the uses that are still to come, so that memory holds only tiles between their first and last use.

    Attributes:
        n_decoded: tiles decoded so far.
        most_held: the greatest number of decoded tiles held at once.
    """

    def __init__(self, decode: Callable[[TileKey], Pixels]) -> None:
        self._decode = decode
        self._lock = threading.Lock()
        self._uses: dict[int, npt.NDArray[np.int32]] = {}
        self._tiles: dict[TileKey, Future[Pixels]] = {}
        self.n_decoded = 0
        self.most_held = 0

    def announce(self, level: int, uses: npt.NDArray[np.int32]) -> None:
        """Expect that many more calls of `take` for each tile of a level; int32 (rows, columns)."""
        with self._lock:
            expected = self._uses.setdefault(level, np.zeros_like(uses))
            expected += uses

    def forget(self) -> None:
        """Drop all tiles and expectations; reads that are under way still finish."""
        with self._lock:
            self._uses.clear()
            self._tiles.clear()

    def take(self, key: TileKey) -> Pixels:
        """Return a tile, decoded here unless another read has decoded it for this one too.

        Raises:
            what decoding raises, for every user of the tile.
        """
        with self._lock:
            tile, is_mine = self._claimed(key)
        if is_mine:
            try:
                tile.set_result(self._decode(key))
            except BaseException as error:
                tile.set_exception(error)
        return tile.result()

    def _claimed(self, key: TileKey) -> tuple[Future[Pixels], bool]:
        """Return the tile's future and whether the caller must fulfil it; counts one use down."""
        level, row, column = key
        expected = self._uses.get(level)
        left = 0
        if expected is not None and expected[row, column] > 0:
            expected[row, column] -= 1
            left = int(expected[row, column])
        tile = self._tiles.get(key)
        is_mine = tile is None
        if tile is None:
            tile = Future()
            self.n_decoded += 1
        if left:
            self._tiles[key] = tile
            self.most_held = max(self.most_held, len(self._tiles))
        else:
            self._tiles.pop(key, None)
        return tile, is_mine
