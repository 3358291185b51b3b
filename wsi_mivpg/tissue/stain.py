"""The two methods that look at colours: optical density and chroma (the default), and HSV saturation.

Pixels in, mask out; it knows neither slides nor files.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_mivpg.tissue.pen import Density, chroma_of, darkness_of, ink_of
from wsi_mivpg.tissue.regions import Mask, closed, enclosed, grown, opened, without_small, without_thin

_cv2: Any = cv2

TISSUE_METHOD = "otsu-od-chroma/4"
HSV_METHOD = "hsv-saturation/1"

_WORK_MPP = 8.0
_OD_FLOOR, _OD_CEILING = 0.03, 0.10
_CHROMA_FLOOR, _CHROMA_CEILING = 0.035, 0.08
# Dust, edges of coverslips and shadows are grey: their chroma is a small part of their darkness. So is the densest
# DAB, but no shadow is as dark.
_GREYEST, _SHADOW_OD = 0.2, 0.4
_CLOSING_UM = 120.0  # alveoli that open at the edge of a lung biopsy are tissue
_LARGEST_HOLE_UM2 = 0.1e6
_LARGEST_SPECK_UM2 = 0.01e6
_WIDEST_LINE_UM = 40.0
# Fat and hardly stained tissue: how wide to look around, the smallest radius that counts, the coarsest usable pixels.
_LOOSE_SIGMA_UM, _LOOSE_RADIUS_UM, _LOOSE_COARSEST_MPP = 60.0, 32.0, 20.0
_FAT_MAGENTA, _FAT_LEAST_MAGENTA, _FAT_VARIATION = 0.004, 0.25, 0.003
_GREY_OD, _GREY_COVER, _GREY_VARIATION, _GREY_UNEVEN = 0.012, 0.8, 0.003, 0.45
_FINE_SIGMA_PX = 2.0
_GLASS_SAMPLES = 400_000
_SATURATION = 15
_SATURATION_MEDIAN_PX = 7


def tissue_of(pixels: npt.NDArray[np.uint8], mpp: float) -> Mask:
    """Return where an image shows tissue, by optical density and chroma, without ink and artefacts.

    A pixel is tissue where it is darker or more coloured than the glass: Otsu thresholds, held between fixed
    floors (so a blank slide stays empty) and ceilings (so pale tissue beside dark tissue is kept). Ink is taken
    out, white lumens inside tissue are filled, thin lines and specks dropped.

    Args:
        pixels: uint8[H, W, 3] RGB.
        mpp: microns per pixel; images finer than 8 are looked at at 8.

    Returns:
        bool[H, W].
    """
    work, work_mpp = _at_work_mpp(pixels, mpp)
    smooth = _cv2.GaussianBlur(work.astype(np.float32), (0, 0), 1.0)
    # Not clipped at glass: a mean over darker and brighter noise has to stay zero.
    density = -np.log10(np.maximum(smooth, 1) / _glass_colour(pixels))
    ink = ink_of(density, work_mpp)
    darkness, chroma = darkness_of(density), chroma_of(density)
    stained = ~ink
    dark = darkness > _otsu_within(darkness[stained], _OD_FLOOR, _OD_CEILING)
    coloured = chroma > _otsu_within(chroma[stained], _CHROMA_FLOOR, _CHROMA_CEILING)
    grey = (chroma <= _GREYEST * darkness) & (darkness < _SHADOW_OD)
    tissue = (dark | coloured) & ~grey & stained
    tissue |= _loose(density, tissue | ink | (darkness > _OD_CEILING), work_mpp)
    # Closing and filling run over ink once more; what is left between strokes may be a speck by now.
    return _at_size(without_specks(_regions(tissue, work_mpp) & stained, work_mpp), pixels)


def without_specks(tissue: Mask, mpp: float) -> Mask:
    """Drop regions too small to be a piece of tissue."""
    return without_small(tissue, _LARGEST_SPECK_UM2, mpp)


def saturated_tissue_of(pixels: npt.NDArray[np.uint8], mpp: float) -> Mask:
    """Return where an image is more saturated than glass: the classic threshold on a median-blurred image.

    It keeps ink. Arguments and result as in `tissue_of`.
    """
    work, work_mpp = _at_work_mpp(pixels, mpp)
    saturation = _cv2.medianBlur(_cv2.cvtColor(work, cv2.COLOR_RGB2HSV)[..., 1].copy(), _SATURATION_MEDIAN_PX)
    return _at_size(_regions(saturation > _SATURATION, work_mpp), pixels)


def _loose(density: Density, taken: Mask, mpp: float) -> Mask:
    """Return tissue too pale for any one pixel to show it: fat, whose membranes no pixel resolves, and grey ground.

    A mean over the surroundings is judged, without what is `taken` already. Fat leaves a weak magenta; tissue that
    a counterstain hardly colours is grey but covers the glass everywhere. Both are uneven, where haze is smooth;
    coarse pixels hide that, so that nothing is found there.
    """
    if mpp > _LOOSE_COARSEST_MPP:
        return np.zeros_like(taken)
    free = 1 - grown(taken, 2 * mpp, mpp).astype(np.float32)
    weight = _blurred(free, mpp)

    def mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        around: npt.NDArray[np.float32] = _blurred(values * free, mpp) / (weight + 1e-3)
        return around

    own_darkness = darkness_of(density)
    darkness = mean(own_darkness)
    magenta = mean(1.5 * (density[..., 1] - own_darkness))
    variation = np.abs(own_darkness - darkness)
    fat = (magenta > _FAT_MAGENTA) & (magenta > _FAT_LEAST_MAGENTA * darkness) & (mean(variation) > _FAT_VARIATION)
    # Finer than the variation of fat, or the edge of a shadow would count.
    fine = np.abs(own_darkness - _cv2.GaussianBlur(own_darkness, (0, 0), _FINE_SIGMA_PX))
    grey = (mean(own_darkness > _GREY_OD) > _GREY_COVER) & (mean(fine > _GREY_VARIATION) > _GREY_UNEVEN)
    return opened((fat | grey) & (free > 0) & (weight > 0.1), _LOOSE_RADIUS_UM, mpp)


def _blurred(values: npt.NDArray[np.float32], mpp: float) -> npt.NDArray[np.float32]:
    """Blur by `_LOOSE_SIGMA_UM`; a third of the pixels a side are enough for it and nine times as fast."""
    height, width = values.shape
    small_px = (max(1, width // 3), max(1, height // 3))
    small = _cv2.resize(values, small_px, interpolation=cv2.INTER_AREA)
    small = _cv2.GaussianBlur(small, (0, 0), _LOOSE_SIGMA_UM / mpp / 3)
    blurred: npt.NDArray[np.float32] = _cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return blurred


def _regions(tissue: Mask, mpp: float) -> Mask:
    """Turn tissue pixels into regions: gaps closed, small holes filled, lines and specks dropped."""
    without_lines = without_thin(closed(tissue, _CLOSING_UM / 2, mpp), _WIDEST_LINE_UM, mpp)
    holes = enclosed(without_lines)
    filled = without_lines | (holes & ~without_small(holes, _LARGEST_HOLE_UM2, mpp))
    return without_specks(filled, mpp)


def _at_work_mpp(pixels: npt.NDArray[np.uint8], mpp: float) -> tuple[npt.NDArray[np.uint8], float]:
    height, width = pixels.shape[:2]
    if mpp >= _WORK_MPP / 1.1:
        return np.ascontiguousarray(pixels), mpp
    size_px = (max(1, round(width * mpp / _WORK_MPP)), max(1, round(height * mpp / _WORK_MPP)))
    work: npt.NDArray[np.uint8] = _cv2.resize(pixels, size_px, interpolation=cv2.INTER_AREA)
    return work, mpp * max(width, height) / max(size_px)


def _at_size(mask: Mask, pixels: npt.NDArray[np.uint8]) -> Mask:
    height, width = pixels.shape[:2]
    if mask.shape == (height, width):
        return mask
    share = _cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    found: Mask = share >= 0.5
    return found


def _glass_colour(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the colour of empty glass, float32[3]: the bright neutral pixels' median, else white.

    Fine pixels tell more than averaged ones: between the membranes of fat there is glass.
    """
    step = max(1, int(np.sqrt(pixels[..., 0].size / _GLASS_SAMPLES)))
    sample = pixels[::step, ::step]
    glass = sample[(sample[..., 0] > 215) & (sample[..., 1] > 215) & (sample[..., 2] > 215) & (chroma_of(sample) < 14)]
    if len(glass) < 0.005 * sample[..., 0].size:
        return np.full(3, 250.0, dtype=np.float32)
    colour: npt.NDArray[np.float32] = np.median(glass, axis=0).astype(np.float32)
    return colour


def _otsu_within(values: npt.NDArray[np.float32], floor: float, ceiling: float) -> float:
    """Return Otsu's threshold of values cut at twice the ceiling, held between floor and ceiling."""
    if not len(values) or values.min() == values.max():
        return ceiling
    counts, edges = np.histogram(np.clip(values, 0, 2 * ceiling), bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    weighted = counts * centres
    mean_below = weighted.cumsum() / np.maximum(below, 1)
    mean_above = weighted[::-1].cumsum()[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(np.clip(centres[between.argmax()], floor, ceiling))
