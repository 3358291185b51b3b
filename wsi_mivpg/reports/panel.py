"""The pictures of one slide of a case, as the case's page is given them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.reports.zoom import ZoomLevel


@dataclass(frozen=True, eq=False)
class SlidePanel:
    """The pictures of one slide on a case page.

    Attributes:
        slide_id: as in `Report.slides` and in every `TopTile`.
        thumbnail: uint8 (H, W, 3) of the whole slide; None where the slide cannot be read, and the maps lie on
            plain ground.
        slide_size_px: (width, height) at level 0; outlines and tiles are in these pixels.
        outline_polygons: closed tissue outlines, each float (K, 2), level-0 (x, y).
        heatmap: the whole report's map over the whole slide, uint8 (h, w, 4), transparent where no tile is; None for
            none. Its size need not be the thumbnail's.
        sentence_heatmaps: index in `Report.sentences` -> that sentence's map, like `heatmap`.
        tile_images: level-0 corner (x, y) of a tile of `Report.top_tiles` or of a sentence's -> its picture at the
            model's resolution, uint8 (h, w, 3); may be empty.
        zoom: what `zoom_levels` read of the slide; none for the thumbnail alone.
    """

    slide_id: str
    thumbnail: NDArray[np.uint8] | None
    slide_size_px: tuple[int, int]
    outline_polygons: Sequence[NDArray[np.floating]] = ()
    heatmap: NDArray[np.uint8] | None = None
    tile_images: Mapping[tuple[int, int], NDArray[np.uint8]] = field(default_factory=dict)
    sentence_heatmaps: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    zoom: Sequence[ZoomLevel] = ()
