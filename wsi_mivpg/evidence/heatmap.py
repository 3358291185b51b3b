"""Attention weights of tiles drawn as a transparent image that lies exactly over a slide's thumbnail.

Pure NumPy. Colours show the *rank* of a tile within its slide (viridis), because attention is heavy-tailed;
`attention_share_of_top` gives the figure that says how uneven the attention really is.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.colour_map import STOPS


def rank_scaled(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each weight's rank in 0..1, float64 (N,); equal weights share their mean rank.

    A single weight, or weights that are all equal, give 0.5 everywhere.
    """
    _, inverse, counts = np.unique(weights, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts + 1) / 2
    return np.asarray(mean_rank[inverse] / max(len(weights) - 1, 1) if len(last) > 1 else inverse * 0.0 + 0.5)


def attention_share_of_top(weights: NDArray[np.floating], fraction: float = 0.1) -> float:
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


def attention_rgba(
    coords: NDArray[np.integer],
    tile_size_l0: float,
    weights: NDArray[np.floating],
    slide_size_px: tuple[int, int],
    out_size_px: tuple[int, int],
) -> NDArray[np.uint8]:
    """Draw one box per tile; transparent wherever there is no tile.

    Args:
        coords: (N, 2) int64, level-0 (x, y) of each tile's top left corner.
        tile_size_l0: side of a tile in level-0 px; not rounded.
        weights: (N,) attention of each tile; need not sum to one.
        slide_size_px: (width, height) at level 0.
        out_size_px: (width, height) of the image, normally the thumbnail's.

    Returns:
        uint8 (height, width, 4). Neighbours on the tile grid share their rounded edge, so there is neither
        gap nor overlap; a tile thinner than one pixel still gets one, and the highest rank wins it.

    Raises:
        ValueError: `coords` and `weights` differ in length or a weight is not finite.
    """
    coords = np.asarray(coords).reshape(-1, 2)
    weights = np.asarray(weights, np.float64)
    if weights.shape != (len(coords),):
        raise ValueError(f"{len(coords)} tiles but weights of shape {weights.shape}")
    if not np.isfinite(weights).all():
        raise ValueError("attention weights must be finite")
    width, height = out_size_px
    image = np.zeros((height, width, 4), np.uint8)
    if not len(coords):
        return image

    scale = np.array(out_size_px, np.float64) / np.array(slide_size_px, np.float64)
    start = _on_grid(coords, tile_size_l0)
    low = np.rint(start * scale).astype(np.int64)
    high = np.maximum(np.rint((start + tile_size_l0) * scale).astype(np.int64), low + 1)
    ranks = rank_scaled(weights)
    colours = _colours(ranks)
    for i in np.argsort(ranks, kind="stable"):
        (x0, y0), (x1, y1) = low[i], high[i]
        image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = colours[i]
    return image


def _on_grid(coords: NDArray[np.integer], tile_size_l0: float) -> NDArray[np.float64]:
    """Undo the rounding of level-0 corners that lie on the grid anchored at (0, 0)."""
    exact = np.rint(coords / tile_size_l0) * tile_size_l0
    return np.asarray(np.where(np.abs(exact - coords) <= 0.5, exact, coords), np.float64)


def _colours(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map 0..1 to opaque RGBA, uint8 (N, 4), linearly between the stops."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in STOPS], np.float64)
    at = np.linspace(0, 1, len(stops))
    channels = [np.interp(values, at, stops[:, i]) for i in range(3)]
    rgba = np.stack([*channels, np.full(len(values), 255.0)], axis=1)
    return np.asarray(np.rint(rgba), np.uint8)
