"""Which tiles of a regular grid a box touches, and how its pixels come together from them.

Geometry only: decoding is the reader's job.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_mivpg.slides.readers.base import Pixels
from wsi_mivpg.slides.readers.tile_cache import TileKey


@dataclass(frozen=True)
class TileGrid:
    """Tiles of `tile_px` (width, height) that cover one level of `size_px` (width, height) without overlap."""

    level: int
    size_px: tuple[int, int]
    tile_px: tuple[int, int]

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return math.ceil(self.size_px[0] / self.tile_px[0])

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return math.ceil(self.size_px[1] / self.tile_px[1])

    def read(
        self,
        use: Callable[[TileKey], AbstractContextManager[Pixels]],
        x: int,
        y: int,
        size_px: tuple[int, int],
        out: Pixels | None = None,
    ) -> Pixels:
        """Return uint8[height, width, 3] of a box inside the level, in `out` where it is given.

        `use` lends a tile as uint8[h, w, 3]; it may be larger or smaller than the grid's at the level's ends.
        """
        width, height = size_px
        tile_width, tile_height = self.tile_px
        pixels = np.empty((height, width, 3), dtype=np.uint8) if out is None else out
        for row in range(y // tile_height, (y + height - 1) // tile_height + 1):
            for column in range(x // tile_width, (x + width - 1) // tile_width + 1):
                left, top = column * tile_width - x, row * tile_height - y
                x0, x1 = max(left, 0), min(left + tile_width, width)
                y0, y1 = max(top, 0), min(top + tile_height, height)
                with use((self.level, row, column)) as tile:
                    pixels[y0:y1, x0:x1] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return pixels

    def uses(self, boxes: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Return how many boxes touch each tile, int32 (rows, columns).

        Args:
            boxes: int64 (N, 4) x, y, width, height in pixels of the level; parts outside are left out.
        """
        uses = np.zeros((self.rows + 1, self.columns + 1), dtype=np.int32)
        first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1
        limit = np.array(self.size_px) - 1
        inside = ((last >= 0) & (first <= limit)).all(axis=1)
        tile_px = np.array(self.tile_px)
        column0, row0 = (np.clip(first[inside], 0, limit) // tile_px).T
        column1, row1 = (np.clip(last[inside], 0, limit) // tile_px).T + 1
        # Corners of each box in a difference image; its double sum counts the boxes over every tile.
        for rows, columns, sign in ((row0, column0, 1), (row0, column1, -1), (row1, column0, -1), (row1, column1, 1)):
            np.add.at(uses, (rows, columns), sign)
        return uses.cumsum(axis=0).cumsum(axis=1)[:-1, :-1].astype(np.int32)
