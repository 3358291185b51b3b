"""Morphology and connected regions in microns.

Sizes come in as microns and become pixels here; what the regions mean is the caller's business.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# OpenCV's types do not know which arrays come back.
_cv2: Any = cv2

Mask = npt.NDArray[np.bool_]


def opened(mask: Mask, radius_um: float, mpp: float) -> Mask:
    """Drop what a disk of `radius_um` does not fit into; a radius below half a pixel drops nothing."""
    radius_px = round(radius_um / mpp)
    if radius_px < 1:
        return mask
    # Beyond the image a region goes on, so that what touches the edge is not worn off.
    disk = _disk(radius_px)
    eroded = _cv2.erode(mask.astype(np.uint8), disk, borderType=cv2.BORDER_REPLICATE)
    return _as_mask(_cv2.dilate(eroded, disk))


def closed(mask: Mask, radius_um: float, mpp: float) -> Mask:
    """Fill gaps that a disk of `radius_um` (one pixel at least) does not fit into; edge pixels go on outside."""
    radius_px = max(1, round(radius_um / mpp))
    padded = _cv2.copyMakeBorder(mask.astype(np.uint8), *(radius_px,) * 4, cv2.BORDER_REPLICATE)
    filled = _cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _disk(radius_px))
    return _as_mask(filled[radius_px:-radius_px, radius_px:-radius_px])


def grown(mask: Mask, radius_um: float, mpp: float) -> Mask:
    """Widen a mask by `radius_um`, by one pixel at least."""
    return _as_mask(_cv2.dilate(mask.astype(np.uint8), _disk(max(1, round(radius_um / mpp)))))


def without_small(mask: Mask, largest_um2: float, mpp: float) -> Mask:
    """Drop connected regions of at most `largest_um2`."""
    _, labels, stats, _ = _cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    kept: Mask = (stats[:, cv2.CC_STAT_AREA] > largest_um2 / mpp**2)[labels] & mask
    return kept


def without_thin(mask: Mask, widest_um: float, mpp: float) -> Mask:
    """Drop connected regions that are nowhere wider than `widest_um`: hairs, edges of glass, rims of pen."""
    reach = _cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    core = mask & (reach > widest_um / mpp / 2 + 0.5)
    return touching(mask, core)


def touching(mask: Mask, seeds: Mask) -> Mask:
    """Return the connected regions of `mask` that hold a pixel of `seeds`."""
    count, labels = _cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    seeded = np.zeros(count, dtype=bool)
    seeded[labels[seeds & mask]] = True
    return _as_mask(seeded[labels])


def enclosed(mask: Mask) -> Mask:
    """Return what is not in `mask` and does not reach the image's edge."""
    count, labels = _cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    inner = np.ones(count, dtype=bool)
    inner[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        inner[edge] = False
    return _as_mask(inner[labels])


def _disk(radius_px: int) -> npt.NDArray[np.uint8]:
    y, x = np.ogrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    disk: npt.NDArray[np.uint8] = (x * x + y * y <= radius_px * radius_px).astype(np.uint8)
    return disk


def _as_mask(values: Any) -> Mask:
    mask: Mask = np.asarray(values, dtype=bool)
    return mask
