"""Which tile lies where, as a small picture of tile numbers: what the viewer colours and looks clicks up in.

Pure geometry over tile corners; it knows neither slides nor weights.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NO_TILE = -1
_MOST_CELLS = 4_000_000
_CELLS_ACROSS_A_TILE = 8
_ROUNDING_L0_PX = 1.0


@dataclass(frozen=True, eq=False)
class Cells:
    """A grid of equal cells over the tiles of a slide.

    Attributes:
        origin: (x, y) of the upper left corner of the first cell, level-0 px.
        size: (width, height) of a cell in level-0 px.
        tiles: int32 (rows, columns): the number of the tile that a cell shows, or `NO_TILE`.
    """

    origin: tuple[float, float]
    size: tuple[float, float]
    tiles: npt.NDArray[np.int32]


def cells_of(coords: npt.NDArray[np.int64], tile_size_l0: float) -> Cells:
    """Lay cells over tiles: one per tile where they lie on a grid, several across each tile where they do not.

    On a grid whose tiles overlap, a cell is one stride wide and lies around the middle of its tile. Off a grid,
    a tile's edge is right to a sixteenth of its side, and of overlapping tiles the later one is shown.

    Args:
        coords: (N, 2) int64, level-0 px, upper left corners (x, y).
        tile_size_l0: side of a tile in level-0 px; 0 where places or size are not known, which gives no cells.
    """
    if not len(coords) or tile_size_l0 <= 0:
        return Cells((0.0, 0.0), (1.0, 1.0), np.empty((0, 0), np.int32))
    across, down = (_grid_axis(coords[:, axis], tile_size_l0) for axis in (0, 1))
    if across is None or down is None:
        return _fine_cells(coords, tile_size_l0)
    (x, width, column), (y, height, row) = across, down
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    if shape[0] * shape[1] > _MOST_CELLS:
        return _fine_cells(coords, tile_size_l0)
    tiles = np.full(shape, NO_TILE, np.int32)
    tiles[row, column] = np.arange(len(coords), dtype=np.int32)
    return Cells((x, y), (width, height), tiles)


def _grid_axis(starts: npt.NDArray[np.int64], side: float) -> tuple[float, float, npt.NDArray[np.int64]] | None:
    """Return (where the first cell begins, stride, each tile's place) along an axis; None where there is no grid."""
    unique = np.unique(starts)
    gaps = np.diff(unique)
    if not len(gaps):
        return float(unique[0]), side, np.zeros(len(starts), np.int64)
    stride = float(gaps.min())
    for _ in range(3):  # corners are rounded, so that the first guess is off by up to a pixel
        stride = float(gaps.sum() / np.rint(gaps / stride).sum())
    place = np.rint((unique - unique[0]) / stride)
    first = float(np.mean(unique - place * stride))
    is_grid = bool(np.all(np.abs(first + place * stride - unique) <= _ROUNDING_L0_PX))
    if not is_grid or stride > side + _ROUNDING_L0_PX or stride < side / 16:
        return None
    return first + (side - stride) / 2, stride, np.rint((starts - first) / stride).astype(np.int64)


def _fine_cells(coords: npt.NDArray[np.int64], side: float) -> Cells:
    low = coords.min(axis=0)
    extent = coords.max(axis=0) + side - low
    cell = max(side / _CELLS_ACROSS_A_TILE, float(np.sqrt(np.prod(extent) / _MOST_CELLS)))
    columns, rows = (int(length) for length in np.ceil(extent / cell))
    first = np.rint((coords - low) / cell).astype(np.int64)
    last = np.maximum(np.rint((coords + side - low) / cell).astype(np.int64), first + 1)
    tiles = np.full((rows, columns), NO_TILE, np.int32)
    across, down = (last - first).max(axis=0)
    for dy in range(int(down)):
        for dx in range(int(across)):
            x, y = first[:, 0] + dx, first[:, 1] + dy
            inside = (x < np.minimum(last[:, 0], columns)) & (y < np.minimum(last[:, 1], rows))
            tiles[y[inside], x[inside]] = np.flatnonzero(inside)
    return Cells((float(low[0]), float(low[1])), (cell, cell), tiles)
