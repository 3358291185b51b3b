"""Where the instances of a case lie: its slides one after another, as maps of weights count them.

From bags alone; the pixels of a slide are the caller's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_mivpg.bags import FeatureBag


@dataclass(frozen=True, eq=False)
class SlideTiles:
    """The tiles of one slide of a case.

    Attributes:
        slide_id: its name.
        first: where its tiles begin in the case's maps.
        coords: (N, 2) int64, level-0 px, top left corners (x, y); -1 where they are not known.
        tile_size_l0: side of a tile in level-0 px; None where the bag does not say.
        slide_size_px: (width, height) at level 0; None where the bag does not say.
    """

    slide_id: str
    first: int
    coords: npt.NDArray[np.int64]
    tile_size_l0: float | None
    slide_size_px: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.coords)

    def of(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the part of the case's map, (..., M), that is this slide's, (..., N)."""
        return weights[..., self.first : self.first + len(self)]

    @property
    def side_l0(self) -> float:
        """Side of a tile in level-0 px; 0 where its tiles cannot be drawn, since their places or size are not known."""
        known = self.tile_size_l0 is not None and bool((self.coords >= 0).all())
        return float(self.tile_size_l0) if known and self.tile_size_l0 else 0.0

    @property
    def canvas_px(self) -> tuple[int, int]:
        """(width, height) of level 0; where the bag does not say, as far as its tiles reach."""
        if self.slide_size_px is not None and min(self.slide_size_px) > 0:
            return self.slide_size_px
        reach = np.ceil(self.coords.max(axis=0, initial=0) + self.side_l0).astype(int)
        return max(int(reach[0]), 1), max(int(reach[1]), 1)


def slides_of(bags: Sequence[FeatureBag], rows: npt.NDArray[np.int64] | None = None) -> tuple[SlideTiles, ...]:
    """Return the slides of a case in the order of its maps, which is `read_case`'s; those without tiles are left out.

    Args:
        bags: of the case.
        rows: (M,), ascending: which of all the bags' tiles were read, where a limit left some out.
    """
    found: list[SlideTiles] = []
    first = start = 0
    for bag in bags:
        coords = bag.coords
        if rows is not None:
            coords = coords[rows[(rows >= start) & (rows < start + len(bag))] - start]
        start += len(bag)
        if not len(coords):
            continue
        side = bag.tile_size_l0 if bag.coords_known else None
        found.append(SlideTiles(bag.slide_id, first, coords, side, bag.slide_size_px))
        first += len(coords)
    return tuple(found)
