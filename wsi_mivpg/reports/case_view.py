"""What the template and the scripts of a case's page are given: slides, tiles and maps as plain values."""

import base64
from collections.abc import Sequence
from typing import Any

from wsi_mivpg.reports.panel import SlidePanel
from wsi_mivpg.reports.pictures import jpeg_uri, path_data, png_uri, scale_bar
from wsi_mivpg.reports.report import Report, SlideSummary
from wsi_mivpg.reports.support import PageTile, Support, map_method
from wsi_mivpg.reports.zoom import TILE_PX


def panel_view(panel: SlidePanel, report: Report) -> dict[str, Any]:
    """Return what is drawn of a slide without any script."""
    width, height = panel.slide_size_px
    summary = _summary(panel, report)
    mpp = summary.mpp if summary else None
    finest = _finest_downsample(panel)
    return {
        "slide_id": panel.slide_id,
        "width": width,
        "height": height,
        "unit": max(width, height) / 100,
        "thumbnail": None if panel.thumbnail is None else jpeg_uri(panel.thumbnail),
        "heatmap": None if panel.heatmap is None else png_uri(panel.heatmap),
        "outline": " ".join(path_data(polygon) for polygon in panel.outline_polygons),
        "tiles": [(rank, tile) for rank, tile in enumerate(report.top_tiles, 1) if tile.slide_id == panel.slide_id],
        # A figure about attention is said only of a map of attention.
        "top_share": summary.top_share if summary and map_method(report) == "attention" else None,
        "scale_bar": scale_bar(width, mpp) if mpp else None,
        "finest_mpp": None if mpp is None or finest is None else mpp * finest,
        "tile_mpp": summary.target_mpp if summary and panel.tile_images else None,
    }


def tile_views(tiles: Sequence[PageTile], panels: Sequence[SlidePanel]) -> list[dict[str, Any]]:
    """Return every tile with its picture, where there is one."""
    pictures = {(panel.slide_id, *corner): image for panel in panels for corner, image in panel.tile_images.items()}
    views = []
    for page_tile in tiles:
        tile = page_tile.tile
        picture = pictures.get((tile.slide_id, tile.x, tile.y))
        views.append(
            {
                "slide_id": tile.slide_id,
                "x": tile.x,
                "y": tile.y,
                "picture": None if picture is None else jpeg_uri(picture),
            }
        )
    return views


def page_data(
    report: Report, found: Sequence[Support], tiles: Sequence[PageTile], panels: Sequence[SlidePanel]
) -> dict[str, Any]:
    """Return what the scripts need beyond the markup: deep zoom, sentences' maps, and which tile supports what."""
    mpp = {slide.slide_id: slide.mpp for slide in report.slides}
    return {
        "panels": [_panel_data(panel, report) for panel in panels],
        "tiles": [
            {
                "slide": page_tile.tile.slide_id,
                "x": page_tile.tile.x,
                "y": page_tile.tile.y,
                "side": page_tile.tile.size_l0_px,
                "about": _side_in_words(page_tile.tile.size_l0_px, mpp.get(page_tile.tile.slide_id)),
                "supports": page_tile.supports,
            }
            for page_tile in tiles
        ],
        "shown": {support.key: [shown.tile for shown in support.tiles] for support in found},
    }


def _panel_data(panel: SlidePanel, report: Report) -> dict[str, Any]:
    summary = _summary(panel, report)
    return {
        "slide": panel.slide_id,
        "width": panel.slide_size_px[0],
        "height": panel.slide_size_px[1],
        "mpp": summary.mpp if summary else None,
        "zoomable": panel.thumbnail is not None,
        "finest": _finest_downsample(panel),
        "tilePx": TILE_PX,
        "levels": [
            {f"{column}_{row}": base64.b64encode(jpeg).decode() for (column, row), jpeg in level.tiles.items()}
            for level in panel.zoom
        ],
        "maps": {f"sentence-{index + 1}": png_uri(image) for index, image in panel.sentence_heatmaps.items()},
        "picturePx": max((image.shape[1] for image in panel.tile_images.values()), default=None),
    }


def _side_in_words(side_l0_px: float, mpp: float | None) -> str:
    pixels = f"{side_l0_px:.4g} of the slide's pixels"
    return f"{pixels} wide" if mpp is None else f"{side_l0_px * mpp:.3g}\u202fµm wide ({pixels})"


def _finest_downsample(panel: SlidePanel) -> float | None:
    if panel.zoom:
        return panel.zoom[-1].downsample
    return None if panel.thumbnail is None else max(panel.slide_size_px) / max(panel.thumbnail.shape[:2])


def _summary(panel: SlidePanel, report: Report) -> SlideSummary | None:
    return next((slide for slide in report.slides if slide.slide_id == panel.slide_id), None)
