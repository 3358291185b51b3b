"""The pictures of a case's page: each slide with its tissue, maps and tiles, read once while it is open.

Maps need no slide: where there is none they lie on plain ground.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import SlideError
from wsi_mivpg.evidence import SlideTiles, overlay, size_within
from wsi_mivpg.extraction import SlideSettings
from wsi_mivpg.reports import ZOOM_BYTES, Report, SlidePanel, SlideSummary, TopTile, ZoomLevel, zoom_levels
from wsi_mivpg.slides import Slide

THUMBNAIL_PX = 1600
MAP_PX = 800

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Maps:
    """What is drawn over a case's slides: float (M,) for the report, and for each of its sentences."""

    report: npt.NDArray[np.float32]
    sentences: Sequence[npt.NDArray[np.float32]] = ()


@dataclass(frozen=True, eq=False)
class SlidePictures:
    """What a page shows of the slide itself; see `SlidePanel`."""

    thumbnail: Pixels
    size_px: tuple[int, int]
    outline_polygons: Sequence[npt.NDArray[np.float64]]
    tile_images: dict[tuple[int, int], Pixels]
    zoom: Sequence[ZoomLevel]


def shown_tiles(report: Report, slide_id: str) -> list[TopTile]:
    """Return the tiles of a slide that the report or a sentence names, each once."""
    named = [*report.top_tiles, *(tile for sentence in report.sentences for tile in sentence.top_tiles)]
    return list({(tile.x, tile.y): tile for tile in named if tile.slide_id == slide_id}.values())


def read_pictures(slide: Slide, settings: SlideSettings, summary: SlideSummary, report: Report) -> SlidePictures:
    """Read what the page shows of an open slide.

    Raises:
        SlideError: its pixels cannot be read, or it is of another size than the one that the report is about.
        TissueError: its tissue cannot be found as asked.
    """
    stated = (summary.width_px, summary.height_px)
    if all(stated) and stated != slide.size_px:
        raise SlideError(
            f"{slide.source}: {slide.size_px[0]}x{slide.size_px[1]} px, but slide {summary.slide_id!r} of the report "
            f"has {stated[0]}x{stated[1]}; name the slide that the report is about"
        )
    thumbnail = slide.thumbnail(THUMBNAIL_PX)
    polygons = settings.find_tissue(slide, summary.slide_id).polygons()
    budget = ZOOM_BYTES // max(len(report.slides), 1)
    return SlidePictures(
        thumbnail=thumbnail,
        size_px=slide.size_px,
        outline_polygons=polygons,
        tile_images=_tile_images(slide, summary, shown_tiles(report, summary.slide_id)),
        zoom=zoom_levels(slide.read_region, slide.size_px, slide.mpp, thumbnail, polygons, budget),
    )


def panel(tiles: SlideTiles, maps: Maps, pictures: SlidePictures | None) -> SlidePanel | None:
    """Return what the page draws of a slide; None where there is neither a slide nor tiles whose places are known."""
    drawable = tiles.side_l0 > 0
    if not drawable and pictures is None:
        return None
    size = size_within(tiles, MAP_PX)
    return SlidePanel(
        slide_id=tiles.slide_id,
        thumbnail=None if pictures is None else pictures.thumbnail,
        slide_size_px=tiles.canvas_px if pictures is None else pictures.size_px,
        outline_polygons=() if pictures is None else pictures.outline_polygons,
        heatmap=overlay(tiles, maps.report, "rank", size) if drawable else None,
        sentence_heatmaps={
            number: overlay(tiles, weights, "rank", size) for number, weights in enumerate(maps.sentences) if drawable
        },
        tile_images={} if pictures is None else pictures.tile_images,
        zoom=() if pictures is None else pictures.zoom,
    )


def _tile_images(slide: Slide, summary: SlideSummary, tiles: Sequence[TopTile]) -> dict[tuple[int, int], Pixels]:
    """Read tiles as the model was given them."""
    if summary.tile_px is None or summary.target_mpp is None:
        return {}
    return {(tile.x, tile.y): slide.read_region(tile.x, tile.y, summary.tile_px, summary.target_mpp) for tile in tiles}
