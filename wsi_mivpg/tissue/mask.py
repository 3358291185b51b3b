"""Find tissue on a thumbnail and answer how much of a box is tissue.

Colour thresholds and morphology only; it neither reads files beyond the slide's thumbnail nor plans tiles.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import filters, measure, morphology

# scikit-image ships partly untyped functions.
_filters: Any = filters
_measure: Any = measure
_morphology: Any = morphology

TISSUE_METHOD = "otsu-od-chroma/2"

_OD_FLOOR, _OD_CEILING = 0.03, 0.10
_CHROMA_FLOOR, _CHROMA_CEILING = 0.035, 0.08
_CLOSING_UM = 120.0  # alveoli that open at the edge of a lung biopsy are tissue
_LARGEST_HOLE_UM2 = 0.1e6
_LARGEST_SPECK_UM2 = 0.01e6


class _HasThumbnail(Protocol):
    mpp: float
    size_px: tuple[int, int]

    def thumbnail(self, max_side_px: int) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class TissueMask:
    """A boolean mask over a whole slide.

    Attributes:
        mask: bool[H, W], true on tissue.
        slide_size_px: (width, height) of level 0.
        slide_mpp: microns per pixel of level 0.
    """

    mask: npt.NDArray[np.bool_]
    slide_size_px: tuple[int, int]
    slide_mpp: float

    @property
    def downsample_x(self) -> float:
        """Level-0 pixels per mask pixel along x."""
        return float(self.slide_size_px[0] / self.mask.shape[1])

    @property
    def downsample_y(self) -> float:
        """Level-0 pixels per mask pixel along y."""
        return float(self.slide_size_px[1] / self.mask.shape[0])

    @property
    def mpp_x(self) -> float:
        """Microns per mask pixel along x."""
        return float(self.downsample_x * self.slide_mpp)

    @property
    def mpp_y(self) -> float:
        """Microns per mask pixel along y."""
        return float(self.downsample_y * self.slide_mpp)

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue in square millimetres."""
        return float(self.mask.sum()) * self.mpp_x * self.mpp_y / 1e6

    def coverage(self, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the tissue fraction of each box, by one integral image.

        Args:
            boxes: (N, 4) level-0 px (x, y, width, height); edges are rounded to mask pixels, and a box
                smaller than a mask pixel takes the pixel that it starts in. Outside the slide is not tissue.

        Returns:
            (N,) float32 in 0..1.
        """
        height, width = self.mask.shape
        integral = np.zeros((height + 1, width + 1), dtype=np.int64)
        integral[1:, 1:] = self.mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        left, right = _mask_range(boxes[:, 0], boxes[:, 2], self.downsample_x)
        top, bottom = _mask_range(boxes[:, 1], boxes[:, 3], self.downsample_y)
        area = (right - left) * (bottom - top)
        left, right = np.clip(left, 0, width), np.clip(right, 0, width)
        top, bottom = np.clip(top, 0, height), np.clip(bottom, 0, height)
        inside = integral[bottom, right] - integral[top, right] - integral[bottom, left] + integral[top, left]
        return (inside / area).astype(np.float32)

    def polygons(self) -> list[npt.NDArray[np.float64]]:
        """Return closed outlines, outer and holes alike, each (K, 2) float64 (x, y) in level-0 px."""
        padded = np.pad(self.mask, 1).astype(np.float32)
        scale = np.array([self.downsample_x, self.downsample_y])
        limit = np.array(self.slide_size_px, dtype=np.float64)
        outlines = []
        for contour in _measure.find_contours(padded, 0.5):
            # Padded pixel (r, c) has its centre at mask position (r - 0.5, c - 0.5), edges at whole numbers.
            line = _measure.approximate_polygon(contour, tolerance=0.7)
            if len(line) >= 4:
                outlines.append(np.clip((line[:, ::-1] - 0.5) * scale, 0, limit))
        return outlines

    def to_geojson(self) -> dict[str, Any]:
        """Return a GeoJSON FeatureCollection that QuPath opens: a Polygon for each region, with its holes."""
        labels, count = ndimage.label(self.mask)
        features = []
        for label in range(1, count + 1):
            region = TissueMask(labels == label, self.slide_size_px, self.slide_mpp)
            # The outer ring encloses the largest area; GeoJSON wants it first.
            rings = sorted(region.polygons(), key=_ring_area, reverse=True)
            if rings:
                features.append(
                    {
                        "type": "Feature",
                        "geometry": {"type": "Polygon", "coordinates": [ring.tolist() for ring in rings]},
                        "properties": {"objectType": "annotation", "classification": {"name": "Tissue"}},
                    }
                )
        return {"type": "FeatureCollection", "features": features}


def find_tissue(slide: _HasThumbnail, *, mask_mpp: float = 8.0) -> TissueMask:
    """Find the tissue of a slide.

    A pixel is tissue where it is darker or more coloured than the glass: Otsu thresholds, held between fixed
    floors (so a blank slide stays empty) and ceilings (so pale tissue beside dark tissue is kept). White
    lumens inside tissue are filled, specks dropped.

    Args:
        slide: an open slide.
        mask_mpp: microns per pixel of the mask.
    """
    longest_px = max(slide.size_px)
    pixels = slide.thumbnail(max(1, round(longest_px * slide.mpp / mask_mpp)))
    mpp = longest_px * slide.mpp / max(pixels.shape[:2])
    return TissueMask(tissue_of(pixels, mpp), slide.size_px, slide.mpp)


def tissue_of(pixels: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.bool_]:
    """Return the tissue mask bool[H, W] of an image uint8[H, W, 3] with `mpp` microns per pixel."""
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), sigma=(1, 1, 0))
    density = -np.log10(np.clip(smooth / _glass_colour(smooth), 1 / 255, 1.0))
    darkness = density.mean(axis=2)
    chroma = density.max(axis=2) - density.min(axis=2)
    tissue = (darkness > _otsu_within(darkness, _OD_FLOOR, _OD_CEILING)) & (chroma > 0.01)
    tissue |= chroma > _otsu_within(chroma, _CHROMA_FLOOR, _CHROMA_CEILING)
    radius = max(1, round(_CLOSING_UM / 2 / mpp))
    closed = np.pad(tissue, radius)
    closed = ndimage.binary_closing(closed, structure=_morphology.disk(radius))[radius:-radius, radius:-radius]
    # Glass that reaches the image's edge is not a hole, however small.
    without_holes = ndimage.binary_fill_holes(closed)
    lakes = _without_small(without_holes & ~closed, _LARGEST_HOLE_UM2 / mpp**2)
    return _without_small(without_holes & ~lakes, _LARGEST_SPECK_UM2 / mpp**2)


def _without_small(mask: npt.NDArray[np.bool_], largest_px: float) -> npt.NDArray[np.bool_]:
    """Drop connected regions of at most `largest_px` pixels."""
    kept: npt.NDArray[np.bool_] = _morphology.remove_small_objects(mask, max_size=int(largest_px))
    return kept


def _glass_colour(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the colour of empty glass, float32[3]: the bright neutral pixels' median, else white."""
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    glass = pixels[(low > 215) & (high - low < 14)]
    if len(glass) < 0.005 * low.size:
        return np.full(3, 250.0, dtype=np.float32)
    colour: npt.NDArray[np.float32] = np.median(glass, axis=0).astype(np.float32)
    return colour


def _otsu_within(values: npt.NDArray[np.float32], floor: float, ceiling: float) -> float:
    if values.min() == values.max():
        return ceiling
    return float(np.clip(_filters.threshold_otsu(np.clip(values, 0, 2 * ceiling)), floor, ceiling))


def _mask_range(
    start: npt.NDArray[np.float64], length: npt.NDArray[np.float64], downsample: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first = np.rint(start / downsample).astype(np.int64)
    last = np.rint((start + length) / downsample).astype(np.int64)
    tiny = last <= first
    first = np.where(tiny, np.floor(start / downsample).astype(np.int64), first)
    return first, np.where(tiny, first + 1, last)


def _ring_area(ring: npt.NDArray[np.float64]) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2
