"""Which tissue is out of focus: where detail of 2 um is missing though detail of 8 um is there.

It reads fine pixels of a slide inside a mask that is already found; what tissue is, is decided elsewhere.
"""

import math
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import SlideError
from wsi_mivpg.tissue.regions import Mask, grown, opened, without_small

_cv2: Any = cv2

Amount = npt.NDArray[np.float32]

_COARSEST_MPP = 2.2
_PATCH_UM = 512.0
_TILE_PX = 256  # patches begin where most files have tiles begin, so that few tiles are decoded twice
_MOST_PIXELS = 48_000_000
"""Pixels that are read at most; of larger tissue, evenly spread patches are read."""

_FINE_UM, _COARSE_UM = 2.0, (4.0, 8.0)
_BLOCK_UM, _AROUND_UM = 64.0, 64.0
# Amplitudes in optical density. Sharp tissue has about as much fine as coarse detail, softly scanned tissue 0.6.
_LEAST_FINE, _LEAST_COARSE, _NOISE = 0.5, 0.001, 0.001
_LEAST_EXCESS = 0.05  # by which blocks that lack detail outnumber the others around a point
_OPENING_UM, _SMALLEST_UM2 = 64.0, 0.04e6
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


class HasLevels(Protocol):
    """What is needed of a slide."""

    mpp: float
    level_sizes_px: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]

    def read_level(self, x0: int, y0: int, level: int, size_px: tuple[int, int]) -> npt.NDArray[np.uint8]: ...


class _Span(NamedTuple):
    """A stretch of one axis, in pixels of a level and of the mask."""

    level: slice
    mask: slice


class _Patch(NamedTuple):
    x: _Span
    y: _Span


class _Detail(NamedTuple):
    """Squared amplitudes of detail of two sizes and where they are known; float32[H, W] of the mask's size."""

    fine: Amount
    coarse: Amount
    known: Amount


def out_of_focus(slide: HasLevels, tissue: Mask, mpp: float) -> Mask:
    """Return which tissue of a slide is out of focus.

    Around each point the detail finer than 2 um is set against the detail between 4 and 8 um, nuclei and their rims.
    Where there is hardly any of that (mucin, colloid, lumens in a mask) nothing is said, and the tissue is kept.

    Args:
        slide: an open slide; one without a level of 2.2 um per pixel or finer is not judged, nor are patches that
            cannot be decoded.
        tissue: bool[H, W], a mask over the whole slide; what is outside is neither read nor judged.
        mpp: microns per pixel of the mask.

    Returns:
        bool[H, W], a part of `tissue`.
    """
    fine_enough = [level for level, each in enumerate(slide.downsamples) if each * slide.mpp <= _COARSEST_MPP]
    if not fine_enough:
        return np.zeros_like(tissue)
    level = max(fine_enough, key=lambda each: slide.downsamples[each])
    patches, apart = _patches(tissue, slide.level_sizes_px[level], slide.downsamples[level] * slide.mpp)
    detail = _Detail(*np.zeros((3, *tissue.shape), dtype=np.float32))
    for patch in patches:
        _add_detail(detail, slide, level, tissue, patch)
    lacking, clear = _votes(detail, mpp)
    if not lacking.any():
        return np.zeros_like(tissue)
    # Tissue between patches is judged by those around it.
    around_blocks = max(_AROUND_UM, (apart - 1) * _PATCH_UM / 2) / _BLOCK_UM
    excess = _blurred(lacking, around_blocks) - _blurred(clear, around_blocks)
    blurred = _cv2.resize(excess, tissue.shape[::-1], interpolation=cv2.INTER_LINEAR) > _LEAST_EXCESS / apart**2
    found = without_small(opened(blurred & tissue, _OPENING_UM, mpp), _SMALLEST_UM2, mpp)
    # A block that is sharp in part counted as sharp.
    return grown(found, _BLOCK_UM / 2, mpp) & tissue


def _votes(detail: _Detail, mpp: float) -> tuple[Amount, Amount]:
    """Return how much of each block lacks fine detail and how much has it, float32[rows, columns] of 64 um.

    Blocks decide before they are averaged, or the strong detail of one that is sharp would outweigh all around it.
    """
    height, width = detail.known.shape
    blocks_px = (max(1, round(width * mpp / _BLOCK_UM)), max(1, round(height * mpp / _BLOCK_UM)))
    fine, coarse, known = (_cv2.resize(each, blocks_px, interpolation=cv2.INTER_AREA) for each in detail)
    tells = coarse > _LEAST_COARSE**2 * known
    lacks = fine - _NOISE**2 * known < _LEAST_FINE**2 * coarse
    return known * (tells & lacks), known * (tells & ~lacks)


def _patches(tissue: Mask, level_size_px: tuple[int, int], level_mpp: float) -> tuple[list[_Patch], int]:
    """Return the patches of a level that hold tissue, no more than may be read: every which one, along both axes."""
    side_px = _TILE_PX * max(1, round(_PATCH_UM / (_TILE_PX * level_mpp)))
    columns, rows = (_spans(*sides, side_px) for sides in zip(level_size_px, tissue.shape[::-1], strict=True))
    held = [[_Patch(x, y) for x in columns if tissue[y.mask, x.mask].any()] for y in rows]
    n_pixels = sum(len(row) for row in held) * side_px**2
    apart = max(1, math.ceil(math.sqrt(n_pixels / _MOST_PIXELS)))
    kept = [patch for row in held[::apart] for patch in row if patch.x.level.start // side_px % apart == 0]
    return kept, apart


def _spans(level_px: int, mask_px: int, side_px: int) -> list[_Span]:
    """Cut one axis into spans of `side_px` pixels of a level; no mask pixel is in two of them, and none is left out."""
    starts = np.arange(0, level_px, side_px)
    ends = np.minimum(starts + side_px, level_px)
    on_mask = [np.rint(edges * mask_px / level_px).astype(int).tolist() for edges in (starts, ends)]
    edges = zip(starts.tolist(), ends.tolist(), *on_mask, strict=True)
    return [_Span(slice(*each[:2]), slice(*each[2:])) for each in edges]


def _add_detail(detail: _Detail, slide: HasLevels, level: int, tissue: Mask, patch: _Patch) -> None:
    """Read a patch, look at it at about 2 um per pixel and put what it shows into `detail`."""
    inside = tissue[patch.y.mask, patch.x.mask]
    level_mpp = slide.downsamples[level] * slide.mpp
    shrink = max(1, int(_COARSEST_MPP / level_mpp))
    width, height = (max(1, (each.level.stop - each.level.start) // shrink) for each in patch)
    try:
        pixels = slide.read_level(patch.x.level.start, patch.y.level.start, level, (width * shrink, height * shrink))
    except SlideError:
        return  # a damaged tile is named by whoever needs its pixels; tissue is not dropped for it
    grey = _cv2.resize(_cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (width, height), interpolation=cv2.INTER_AREA)
    density = _cv2.LUT(grey, _DENSITY)
    for total, energy in zip(detail, _energies(density, level_mpp * shrink), strict=False):
        mean = _cv2.resize(energy, inside.shape[::-1], interpolation=cv2.INTER_AREA)
        total[patch.y.mask, patch.x.mask] = mean * inside
    detail.known[patch.y.mask, patch.x.mask] = inside


def _energies(density: Amount, mpp: float) -> tuple[Amount, Amount]:
    """Return the squares of fine and of coarse detail, float32 at half of the size of `density`."""
    half_px = (max(1, density.shape[1] // 2), max(1, density.shape[0] // 2))
    fine, coarse = density - _blurred(density, _FINE_UM / mpp), _halved(density, half_px)
    coarse = _blurred(coarse, _COARSE_UM[0] / (2 * mpp)) - _blurred(coarse, _COARSE_UM[1] / (2 * mpp))
    # Beside a nucleus or an outline coarse detail reaches further, which would look like blur; so fine detail has to.
    return _blurred(_halved(fine * fine, half_px), _COARSE_UM[1] / (2 * mpp)), coarse * coarse


def _halved(values: Amount, half_px: tuple[int, int]) -> Amount:
    halved: Amount = _cv2.resize(values, half_px, interpolation=cv2.INTER_AREA)
    return halved


def _blurred(values: Amount, sigma_px: float) -> Amount:
    blurred: Amount = _cv2.GaussianBlur(values, (0, 0), sigma_px)
    return blurred
