"""One grid of equal tiles over a slide, at a resolution in microns per pixel.

Pure geometry: it knows no files and no pixels; tissue enters as a function from boxes to fractions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import ResolutionError

Coverage = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float32]]

UPSAMPLING_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class TilePlan:
    """The tiles to read of one slide, in rows from the top left.

    Attributes:
        target_mpp: microns per pixel of the tiles.
        tile_px: side of a tile in pixels at `target_mpp`.
        slide_size_px: (width, height) of level 0.
        slide_mpp: microns per pixel of level 0.
        coords: (N, 2) int64, level-0 px, the tiles' top left corners (x, y).
        grid: (N, 2) int32, (column, row).
        tile_size_l0: side of a tile in level-0 px, a float that is never truncated.
        tissue_fraction: (N,) float32 in 0..1; all 1 when planned without a coverage function.
        min_tissue: the least fraction that was kept.
    """

    target_mpp: float
    tile_px: int
    slide_size_px: tuple[int, int]
    slide_mpp: float
    coords: npt.NDArray[np.int64]
    grid: npt.NDArray[np.int32]
    tile_size_l0: float
    tissue_fraction: npt.NDArray[np.float32]
    min_tissue: float

    def __len__(self) -> int:
        return len(self.coords)


def plan_tiles(
    slide_size_px: tuple[int, int],
    slide_mpp: float,
    *,
    target_mpp: float,
    tile_px: int,
    coverage: Coverage | None = None,
    min_tissue: float = 0.25,
) -> TilePlan:
    """Lay one grid anchored at (0, 0) over a slide and keep the tiles with enough tissue.

    Column c starts at `rint(c * tile_size_l0)`, so rounding never accumulates: every tile lies within half a
    level-0 pixel of its true place. Only tiles that lie wholly inside the slide are planned.

    Args:
        slide_size_px: (width, height) of level 0.
        slide_mpp: microns per pixel of level 0.
        target_mpp: microns per pixel of the tiles.
        tile_px: side of a tile in pixels.
        coverage: maps float64[N, 4] level-0 boxes (x, y, width, height) to tissue fractions float32[N].
        min_tissue: tiles with a smaller fraction are left out.

    Raises:
        ResolutionError: the slide is coarser than `target_mpp`.
    """
    if target_mpp < slide_mpp * (1 - UPSAMPLING_TOLERANCE):
        raise ResolutionError(
            f"the slide has {slide_mpp:g} microns per pixel, coarser than the {target_mpp:g} that the "
            "encoder needs; use a scan of higher magnification, or correct a wrong value with --mpp"
        )
    size_l0 = tile_px * target_mpp / slide_mpp
    columns, rows = (_starts(side, size_l0) for side in slide_size_px)
    row, column = np.meshgrid(np.arange(len(rows)), np.arange(len(columns)), indexing="ij")
    grid = np.stack([column.ravel(), row.ravel()], axis=1).astype(np.int32)
    coords = np.stack([columns[grid[:, 0]], rows[grid[:, 1]]], axis=1)
    fraction = np.ones(len(coords), dtype=np.float32)
    if coverage is not None:
        boxes = np.concatenate([coords.astype(np.float64), np.full((len(coords), 2), size_l0)], axis=1)
        fraction = np.asarray(coverage(boxes), dtype=np.float32)
    kept = fraction >= min_tissue
    return TilePlan(
        target_mpp=target_mpp,
        tile_px=tile_px,
        slide_size_px=slide_size_px,
        slide_mpp=slide_mpp,
        coords=coords[kept],
        grid=grid[kept],
        tile_size_l0=size_l0,
        tissue_fraction=fraction[kept],
        min_tissue=min_tissue,
    )


def _starts(side_px: int, size_l0: float) -> npt.NDArray[np.int64]:
    """Return the rounded starts of all tiles of `size_l0` that end within `side_px`; int64[K]."""
    starts = np.rint(np.arange(int(side_px // size_l0) + 1) * size_l0).astype(np.int64)
    inside: npt.NDArray[np.int64] = starts[starts + size_l0 <= side_px + 1e-6]
    return inside
