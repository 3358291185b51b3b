"""A mask over a whole slide: how much of a box is tissue, outlines, GeoJSON.

It holds the answer and does not say how it was found; finding is in `finding`, the file format in `geojson`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from skimage import measure

from wsi_mivpg import notebook_cards
from wsi_mivpg.tissue.geojson import collection_of, mask_of

# scikit-image ships partly untyped functions.
_measure: Any = measure


@dataclass(frozen=True, eq=False)
class TissueMask:
    """A boolean mask over a whole slide.

    Attributes:
        mask: bool[H, W], true on tissue.
        slide_size_px: (width, height) of level 0.
        slide_mpp: microns per pixel of level 0.
        method: what made the mask, for provenance: a name with a version, or "geojson:" and the file's name.
        blurred: bool[H, W], tissue that is not in the mask because it is out of focus; None where nobody looked.
    """

    mask: npt.NDArray[np.bool_]
    slide_size_px: tuple[int, int]
    slide_mpp: float
    method: str = "given"
    blurred: npt.NDArray[np.bool_] | None = None

    @classmethod
    def from_geojson(
        cls,
        source: Path | str | dict[str, Any] | list[Any],
        slide_size_px: tuple[int, int],
        slide_mpp: float,
        *,
        mask_mpp: float = 8.0,
    ) -> Self:
        """Rasterise polygons, as QuPath and `to_geojson` write them.

        Args:
            source: a file, or what it holds: a FeatureCollection, Feature, bare geometry or QuPath's list.
                Polygon, MultiPolygon and GeometryCollection count, holes included; points and lines have no area
                and are passed over. Coordinates are level-0 px.
            slide_size_px: (width, height) of level 0.
            slide_mpp: microns per pixel of level 0.
            mask_mpp: microns per pixel of the mask; a mask pixel is tissue if its centre is inside.

        Raises:
            TissueError: the file is missing or malformed, or holds no polygon on the slide.
        """
        scale = max(1.0, mask_mpp / slide_mpp)
        width, height = (max(1, round(side / scale)) for side in slide_size_px)
        if isinstance(source, Path | str):
            source = Path(source)
            where, method = str(source), f"geojson:{source.name}"
        else:
            where, method = "the GeoJSON", "geojson"
        return cls(mask_of(source, where, slide_size_px, (height, width)), slide_size_px, slide_mpp, method)

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

    @notebook_cards.safe
    def _repr_html_(self) -> str:
        share = float(self.mask.mean()) if self.mask.size else 0.0
        blurred = None if self.blurred is None else float(self.blurred.sum()) * self.mpp_x * self.mpp_y / 1e6
        facts = [
            ("tissue", f"{self.tissue_mm2:.3g} mm², {share:.0%} of the slide"),
            ("out of focus, left out", f"{blurred:.3g} mm²" if blurred else None),
            ("found by", self.method),
            ("mask", f"{notebook_cards.size_text(self.mask.shape[::-1])} of {self.mpp_x:.3g} µm"),
        ]
        picture = notebook_cards.mask_picture(self.mask, self.blurred)
        um_per_px = self.slide_size_px[0] * self.slide_mpp / picture.shape[1]
        return notebook_cards.card("Tissue mask", facts, notebook_cards.Picture(picture, um_per_px))

    def to_geojson(self) -> dict[str, Any]:
        """Return a GeoJSON FeatureCollection that QuPath opens: a Polygon for each region, with its holes.

        `from_geojson` at the same mask size gives the same mask back.
        """
        return collection_of(self.mask, (self.downsample_x, self.downsample_y))


def _mask_range(
    start: npt.NDArray[np.float64], length: npt.NDArray[np.float64], downsample: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first = np.rint(start / downsample).astype(np.int64)
    last = np.rint((start + length) / downsample).astype(np.int64)
    tiny = last <= first
    first = np.where(tiny, np.floor(start / downsample).astype(np.int64), first)
    return first, np.where(tiny, first + 1, last)
