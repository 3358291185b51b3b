"""Weights of tiles drawn as a transparent image that lies exactly over a picture of their slide, of any size.

Pure NumPy, from coordinates and weights alone. A pixel belongs to a tile that holds its centre; where several tiles do,
it shows the mean of them, so that overlapping tiles neither widen nor hide a hot place.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.colour_map import STOPS

TOP_SHARE = 0.1
"""What counts as the top of a map: its contour, its region in GeoJSON, and `attention_share_of_top`."""
_SNAP_PX = 1e-6


def rank_scaled(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each weight's rank in 0..1, float64 (N,); equal weights share their mean rank.

    A single weight, or weights that are all equal, give 0.5 everywhere. Signed weights are ranked as they are: 0 is the
    tile that speaks against a sentence most.
    """
    _, inverse, counts = np.unique(weights, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts + 1) / 2
    return np.asarray(mean_rank[inverse] / max(len(weights) - 1, 1) if len(last) > 1 else inverse * 0.0 + 0.5)


def raw_scaled(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each weight as a share (0..1) of the largest, float64 (N,); weights below zero give 0.

    What speaks against a sentence is so drawn like what says nothing: one colour map cannot show both sides of zero.
    """
    values = np.asarray(weights, np.float64)
    top = float(values.max(initial=0.0))
    return np.clip(values / top, 0, 1) if top > 0 else np.zeros(len(values))


def attention_share_of_top(weights: NDArray[np.floating], fraction: float = TOP_SHARE) -> float:
    """Return the share (0..1) of all attention that lies on the top `fraction` of tiles.

    Even attention gives about `fraction` itself. No tiles, or no weight at all, give 0.
    """
    total = float(np.sum(weights, dtype=np.float64))
    if total <= 0:
        return 0.0
    n_top = max(1, round(len(weights) * fraction))
    return float(np.sort(np.asarray(weights, np.float64))[-n_top:].sum() / total)


def top_tiles(weights: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the indices, int64, of the `count` largest weights, largest first; ties by position."""
    return np.argsort(-np.asarray(weights, np.float64), kind="stable")[:count].astype(np.int64)


def supporting_tiles(weights: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return those of `top_tiles` that weigh more than zero: what speaks against a sentence is no support."""
    best = top_tiles(weights, count)
    return best[np.asarray(weights)[best] > 0]


def top_decile(weights: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which tiles, bool (N,), are the tenth with the largest weights; at least one, ties by position."""
    chosen = np.zeros(len(weights), bool)
    chosen[top_tiles(weights, max(1, round(len(weights) * TOP_SHARE)))] = True
    return chosen


def attention_rgba(
    coords: NDArray[np.integer],
    tile_size_l0: float,
    weights: NDArray[np.floating],
    slide_size_px: tuple[int, int],
    out_size_px: tuple[int, int],
) -> NDArray[np.uint8]:
    """Draw weights by their rank; see `heatmap_rgba`."""
    return heatmap_rgba(coords, tile_size_l0, rank_scaled(_finite(weights)), slide_size_px, out_size_px)


def heatmap_rgba(
    coords: NDArray[np.integer],
    tile_size_l0: float,
    shares: NDArray[np.floating],
    slide_size_px: tuple[int, int],
    out_size_px: tuple[int, int],
) -> NDArray[np.uint8]:
    """Draw one box per tile in the colours of viridis; transparent wherever there is no tile.

    Args:
        coords: (N, 2) int64, level-0 (x, y) of each tile's top left corner.
        tile_size_l0: side of a tile in level-0 px; not rounded.
        shares: (N,) in 0..1, as `rank_scaled` and `raw_scaled` give them.
        slide_size_px: (width, height) at level 0.
        out_size_px: (width, height) of the image, normally the thumbnail's.

    Returns:
        uint8 (height, width, 4).

    Raises:
        ValueError: `coords` and `shares` differ in length or a share is not finite.
    """
    means = tile_means(coords, tile_size_l0, shares, slide_size_px, out_size_px)
    return colours(means)


def tile_means(
    coords: NDArray[np.integer],
    tile_size_l0: float,
    values: NDArray[np.floating],
    slide_size_px: tuple[int, int],
    out_size_px: tuple[int, int],
) -> NDArray[np.float64]:
    """Return for each pixel the mean value of the tiles that hold its centre, float64 (height, width); NaN for none.

    Neighbours on the tile grid share their edge, so there is neither gap nor overlap; a tile that holds no pixel's
    centre gets the pixel that its own centre lies in. Arguments as in `heatmap_rgba`. The time is that of the pixels
    and of the tiles, not of their product.
    """
    coords = np.asarray(coords).reshape(-1, 2)
    values = _finite(values)
    if values.shape != (len(coords),):
        raise ValueError(f"{len(coords)} tiles but weights of shape {values.shape}")
    size = np.array(out_size_px, np.int64)
    low, high = _boxes(coords, tile_size_l0, size / np.array(slide_size_px, np.float64))
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    shape = (int(size[1]), int(size[0]))
    number = np.rint(sums_over_boxes(low, high, np.ones(len(coords)), shape))
    sums = sums_over_boxes(low, high, values, shape)
    return np.asarray(np.divide(sums, number, out=np.full(shape, np.nan), where=number > 0))


def colours(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map 0..1 to opaque RGBA, and NaN to transparency; uint8 (..., 4)."""
    steps = np.where(np.isnan(shares), 256, np.clip(shares, 0, 1) * 255 + 0.5).astype(np.int16)
    return _table().view(np.uint32).ravel()[steps].view(np.uint8).reshape(*shares.shape, 4)


def _boxes(
    coords: NDArray[np.integer], side: float, scale: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each tile's first pixel and the one after its last, int64 (N, 2) each, (x, y)."""
    start = on_grid(coords, side) * scale
    end = start + side * scale
    low, high = _first_centre(start), _first_centre(end)
    centre = np.floor((start + end) / 2).astype(np.int64)
    thin = high <= low
    return np.where(thin, centre, low), np.where(thin, centre + 1, high)


def _first_centre(edge: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the first pixel whose centre is at or beyond an edge; edges that differ by rounding give one answer."""
    return np.ceil(edge - 0.5 - _SNAP_PX).astype(np.int64)


def sums_over_boxes(
    low: NDArray[np.int64], high: NDArray[np.int64], values: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the sum of the values of all boxes over each pixel: changes at the boxes' corners, summed up."""
    width = shape[1] + 1
    corners = [low[:, 1] * width + low[:, 0], low[:, 1] * width + high[:, 0]]
    corners += [high[:, 1] * width + low[:, 0], high[:, 1] * width + high[:, 0]]
    changes = np.concatenate([values, -values, -values, values])
    flat = np.bincount(np.concatenate(corners), changes, minlength=(shape[0] + 1) * width)
    grid = flat.astype(np.float64, copy=False).reshape(-1, width)
    np.cumsum(grid, axis=0, out=grid)
    np.cumsum(grid, axis=1, out=grid)
    return grid[:-1, :-1]


def on_grid(coords: NDArray[np.integer], tile_size_l0: float) -> NDArray[np.float64]:
    """Undo the rounding of level-0 corners that lie on the grid anchored at (0, 0)."""
    exact = np.rint(coords / tile_size_l0) * tile_size_l0
    return np.asarray(np.where(np.abs(exact - coords) <= 0.5, exact, coords), np.float64)


def _finite(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(weights, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("weights must be finite")
    return values


@cache
def _table() -> NDArray[np.uint8]:
    """Return viridis as uint8 (257, 4), linear between its stops; the last is transparent."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in STOPS], np.float64)
    at, shares = np.linspace(0, 1, len(stops)), np.linspace(0, 1, 256)
    channels = [np.interp(shares, at, stops[:, i]) for i in range(3)]
    opaque = np.rint(np.stack([*channels, np.full(256, 255.0)], axis=1)).astype(np.uint8)
    return np.concatenate([opaque, np.zeros((1, 4), np.uint8)])
