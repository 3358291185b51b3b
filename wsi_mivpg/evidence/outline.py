"""The outline of a set of tiles as polygons in level-0 px, exact at the tiles' edges.

Pure geometry. Rings are closed and simple; outer rings have positive area by the shoelace formula on (x, y) as numbers,
holes negative, which is the right-hand rule of RFC 7946.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wsi_mivpg.evidence.heatmap import on_grid, sums_over_boxes

Ring = npt.NDArray[np.float64]
_Vertex = tuple[int, int, int]
_MOST_EDGES = 4096
"""On one axis; where there are more, since tiles lie in no grid, they are put on so many steps."""


def square(corner: npt.NDArray[np.int64], side_px: float) -> Ring:
    """Return the ring, (5, 2), of a tile with its top left corner (x, y)."""
    return corner + side_px * np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], np.float64)


def outline(coords: npt.NDArray[np.int64], tile_size_l0: float) -> list[list[Ring]]:
    """Return a polygon, outer ring first and then its holes, for each piece that hangs together by tiles' edges.

    Edges less than a level-0 pixel apart, which rounding of the tiles' corners makes, are one.

    Args:
        coords: (N, 2) int64, level-0 px, top left corners (x, y).
        tile_size_l0: side of a tile in level-0 px; not rounded.
    """
    if not len(coords):
        return []
    start = on_grid(coords, tile_size_l0)
    low, high, edges = [], [], []
    for axis in (0, 1):
        values = np.concatenate([start[:, axis], start[:, axis] + tile_size_l0])
        places, places_of = _merged(values, min(1.0, tile_size_l0 / 4))
        low.append(places_of[: len(coords)])
        high.append(np.maximum(places_of[len(coords) :], low[-1] + 1))
        edges.append(places)
    shape = (len(edges[1]) - 1, len(edges[0]) - 1)
    number = sums_over_boxes(np.stack(low, 1), np.stack(high, 1), np.ones(len(coords)), shape)
    labels, count = ndimage.label(number > 0.5)
    polygons: list[list[Ring]] = [[] for _ in range(count)]
    for label, corners in _rings(labels):
        ring = np.stack([edges[0][corners[:, 0]], edges[1][corners[:, 1]]], axis=1)
        is_outer = signed_area(ring) > 0
        polygons[label - 1].insert(0 if is_outer else len(polygons[label - 1]), ring)
    return polygons


def signed_area(ring: Ring) -> float:
    """Return a closed ring's area in px², positive where it runs against the clock with y upwards."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _merged(values: npt.NDArray[np.float64], tolerance: float) -> tuple[Ring, npt.NDArray[np.int64]]:
    """Return the distinct values, those within `tolerance` of their neighbour as one, and for each value its place.

    Where tiles lie in no grid, so that values are too many or too close for that, they are put on steps.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    breaks = np.diff(ordered) > tolerance
    group = np.concatenate([[0], np.cumsum(breaks)])
    firsts, lasts = ordered[np.append(True, breaks)], ordered[np.append(breaks, True)]
    if len(firsts) > _MOST_EDGES or (lasts - firsts).max() > 2 * tolerance:
        step = max(tolerance, (ordered[-1] - ordered[0]) / _MOST_EDGES)
        _, group = np.unique(np.rint(ordered / step), return_inverse=True)
    places = np.empty(len(values), np.int64)
    places[order] = group
    return np.bincount(group, ordered) / np.bincount(group), places


def _rings(labels: npt.NDArray[np.int32]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each closed ring of cells' corners, (K, 2) (column, row), with the label of the region on its left."""
    onward = _edges(labels)
    while onward:
        at = next(iter(onward))
        path, place = [at], {at: 0}
        while at in onward:
            nexts = onward[at]
            following = nexts.pop()
            if not nexts:
                del onward[at]
            at = following
            if at in place:  # a ring is closed, though the walk may go on where two of them touch
                ring = path[place[at] :]
                yield at[2], _corners(ring)
                for vertex in ring[1:]:
                    del place[vertex]
                del path[place[at] + 1 :]
            else:
                place[at] = len(path)
                path.append(at)


def _edges(labels: npt.NDArray[np.int32]) -> dict[_Vertex, list[_Vertex]]:
    """Return the cells' edges towards other labels, with the cell on the left, as (column, row, label) to the same."""
    padded = np.pad(labels, 1)
    onward: dict[_Vertex, list[_Vertex]] = defaultdict(list)
    # Which neighbour, (row, column), and where its edge starts and ends from the cell's lower corner, (column, row).
    sides = [((-1, 0), (0, 0), (1, 0)), ((0, 1), (1, 0), (1, 1)), ((1, 0), (1, 1), (0, 1)), ((0, -1), (0, 1), (0, 0))]
    for (down, right), begin, end in sides:
        neighbour = np.roll(padded, (-down, -right), (0, 1))[1:-1, 1:-1]
        rows, columns = np.nonzero((labels > 0) & (neighbour != labels))
        for row, column, label in zip(rows.tolist(), columns.tolist(), labels[rows, columns].tolist(), strict=True):
            onward[column + begin[0], row + begin[1], label].append((column + end[0], row + end[1], label))
    return onward


def _corners(ring: list[_Vertex]) -> npt.NDArray[np.int64]:
    """Return a ring closed, without the points along its straight sides."""
    points = np.array(ring, np.int64)[:, :2]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = (before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) != 0
    kept = points[turns]
    return np.concatenate([kept, kept[:1]])
