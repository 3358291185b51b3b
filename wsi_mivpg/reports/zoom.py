"""Deep zoom that fits into a page: JPEG tiles of the tissue, level by level, for as long as the bytes last.

Opens no slide; it is given what reads a region of one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from wsi_mivpg.errors import SlideError

ZOOM_BYTES = 4_200_000
"""JPEG bytes of all slides of a page; in the page they are a third more (base64)."""

TILE_PX = 256
_QUALITY = 80
_CELLS_PER_TILE = 8

ReadRegion = Callable[[float, float, int | tuple[int, int], float], NDArray[np.uint8]]
"""`Slide.read_region`: level-0 (x, y), size in px, microns per pixel -> uint8 (h, w, 3)."""


@dataclass(frozen=True, eq=False)
class ZoomLevel:
    """One level of a slide's picture in square tiles that lie side by side from the top left corner.

    Attributes:
        downsample: level-0 px per px; half of the level before, and of the thumbnail for the first level.
        tiles: (column, row) -> JPEG; what is missing is drawn from the level before.
    """

    downsample: float
    tiles: Mapping[tuple[int, int], bytes]


def zoom_levels(
    read_region: ReadRegion,
    slide_size_px: tuple[int, int],
    mpp: float,
    thumbnail: NDArray[np.uint8],
    outline_polygons: Sequence[NDArray[np.floating]] = (),
    budget_bytes: int = ZOOM_BYTES,
) -> list[ZoomLevel]:
    """Return levels finer than the thumbnail, each twice as fine as the one before, the finest not beyond level 0.

    Args:
        read_region: the slide's own; see `ReadRegion`.
        slide_size_px: (width, height) at level 0.
        mpp: microns per pixel of level 0.
        thumbnail: uint8 (H, W, 3) of the whole slide.
        outline_polygons: the tissue, outer outlines and holes, each (K, 2), level-0 (x, y); none for the whole slide.
        budget_bytes: JPEG bytes for all levels together. A level that does not fit is left out whole, so that the
            picture is equally sharp everywhere. A tile that cannot be decoded is left to the level before.
    """
    levels: list[ZoomLevel] = []
    downsample = max(slide_size_px) / max(thumbnail.shape[:2]) / 2
    while downsample >= 1:
        places = _tissue_tiles(outline_polygons, slide_size_px, downsample)
        tiles = _read_tiles(read_region, slide_size_px, mpp, downsample, places, budget_bytes)
        if tiles is None:
            break
        budget_bytes -= sum(map(len, tiles.values()))
        levels.append(ZoomLevel(downsample, tiles))
        downsample /= 2
    return levels


def _tissue_tiles(
    outline_polygons: Sequence[NDArray[np.floating]], slide_size_px: tuple[int, int], downsample: float
) -> list[tuple[int, int]]:
    """Return (column, row) of every tile that holds tissue, row by row."""
    columns, rows = (math.ceil(side / downsample / TILE_PX) for side in slide_size_px)
    if not outline_polygons:
        return [(column, row) for row in range(rows) for column in range(columns)]
    cell = TILE_PX * downsample / _CELLS_PER_TILE
    mask = np.zeros((rows * _CELLS_PER_TILE, columns * _CELLS_PER_TILE), np.uint8)
    cv2.fillPoly(mask, [np.floor(polygon / cell).astype(np.int32) for polygon in outline_polygons], 1)
    held = mask.reshape(rows, _CELLS_PER_TILE, columns, _CELLS_PER_TILE).any(axis=(1, 3))
    return [(int(column), int(row)) for row, column in np.argwhere(held)]


def _read_tiles(
    read_region: ReadRegion,
    slide_size_px: tuple[int, int],
    mpp: float,
    downsample: float,
    places: list[tuple[int, int]],
    budget_bytes: int,
) -> dict[tuple[int, int], bytes] | None:
    """Return the tiles, or None where they do not fit; a first sample over the slide tells soon if they never will."""
    sample = places[:: max(1, len(places) // 8)]
    rest = [place for index, place in enumerate(places) if index % max(1, len(places) // 8)]
    width, height = (math.ceil(side / downsample) for side in slide_size_px)
    tiles: dict[tuple[int, int], bytes] = {}
    used = 0
    for column, row in sample + rest:
        x, y = column * TILE_PX, row * TILE_PX
        size_px = (min(TILE_PX, width - x), min(TILE_PX, height - y))
        try:
            pixels = read_region(x * downsample, y * downsample, size_px, mpp * downsample)
        except SlideError:
            continue
        tiles[column, row] = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), _QUALITY, colorsubsampling="420")
        used += len(tiles[column, row])
        hopeless = len(tiles) == len(sample) and used * len(places) / len(sample) > 2 * budget_bytes
        if hopeless or used > budget_bytes:
            return None
    return tiles
