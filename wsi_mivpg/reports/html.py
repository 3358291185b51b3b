"""Self-contained HTML pages: one per case, and an index of all cases.

A page needs no network and no other file. All text is escaped; the only script is the package's own, named by
its hash in the page's content security policy.
"""

import base64
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from wsi_mivpg.atomic import write_text
from wsi_mivpg.colour_map import STOPS
from wsi_mivpg.reports.panel import SlidePanel
from wsi_mivpg.reports.report import DISCLAIMER, Report

_INDEX_THUMBNAIL_PX = 360


def case_page(
    report: Report,
    thumbnail: NDArray[np.uint8],
    outline_polygons: Sequence[NDArray[np.floating]],
    heatmap: NDArray[np.uint8] | None,
    slide_size_px: tuple[int, int],
) -> str:
    """Return the page of a case that has one slide; see `SlidePanel` for shapes and units."""
    slide_id = report.slides[0].slide_id if report.slides else report.case_id
    return render_case(report, [SlidePanel(slide_id, thumbnail, slide_size_px, outline_polygons, heatmap)])


def render_case(report: Report, panels: Sequence[SlidePanel]) -> str:
    """Return the page of a case with a picture per slide; no panels give a page of text and tables."""
    images = {(panel.slide_id, *place): tile for panel in panels for place, tile in panel.tile_images.items()}
    tile_images = {
        index: _jpeg_uri(images[tile.slide_id, tile.x, tile.y])
        for index, tile in enumerate(report.top_tiles)
        if (tile.slide_id, tile.x, tile.y) in images
    }
    return (
        _environment()
        .get_template("case.html.j2")
        .render(
            report=report,
            panels=[_panel_view(panel, report) for panel in panels],
            tile_images=tile_images,
            made_by=_made_by(report),
            stops=STOPS,
            script_hash=_script_hash(),
        )
    )


def index_page(
    reports: Sequence[Report],
    failures: Mapping[str, str],
    thumbnails: Mapping[str, NDArray[np.uint8]] | None = None,
) -> str:
    """Return the page that lists every case, and every input that failed (name -> reason).

    Args:
        reports: linked to `file_name(case_id)` in the same folder.
        failures: what gave no report, and why.
        thumbnails: case_id -> uint8 (H, W, 3); cases without one are listed without a picture.
    """
    pictures = {name: _jpeg_uri(_shrunk(image)) for name, image in (thumbnails or {}).items()}
    return (
        _environment()
        .get_template("index.html.j2")
        .render(
            reports=reports,
            failures=failures,
            pictures=pictures,
            disclaimer=reports[0].disclaimer if reports else DISCLAIMER,
            script_hash=_script_hash(),
        )
    )


def write_case(folder: Path, report: Report, panels: Sequence[SlidePanel]) -> Path:
    """Write the page of a case to ``folder / file_name(case_id)``, whole or not at all; return its path.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = folder / file_name(report.case_id)
    write_text(path, render_case(report, panels))
    return path


def file_name(case_id: str) -> str:
    """Return a portable ``*.html`` name; a changed id gets a hash, so that two cases never share a page."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", case_id).strip(".-")[:80]
    if safe and safe == case_id and safe.lower() != "index":
        return f"{safe}.html"
    return f"{safe or 'case'}-{hashlib.sha256(case_id.encode()).hexdigest()[:8]}.html"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("wsi_mivpg.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["page"] = file_name
    environment.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\u202f")
    environment.filters["percent"] = lambda share: f"{share * 100:.{0 if share >= 0.1 else 1}f}\u202f%"
    return environment


@cache
def _script_hash() -> str:
    script = _environment().get_template("case.js").render()
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _panel_view(panel: SlidePanel, report: Report) -> dict[str, Any]:
    width, height = panel.slide_size_px
    summary = next((slide for slide in report.slides if slide.slide_id == panel.slide_id), None)
    return {
        "slide_id": panel.slide_id,
        "width": width,
        "height": height,
        "unit": max(width, height) / 100,
        "thumbnail": None if panel.thumbnail is None else _jpeg_uri(panel.thumbnail),
        "heatmap": None if panel.heatmap is None else _png_uri(panel.heatmap),
        "outline": " ".join(_path_data(polygon) for polygon in panel.outline_polygons),
        "tiles": [(i, tile) for i, tile in enumerate(report.top_tiles) if tile.slide_id == panel.slide_id],
        "top_share": None if summary is None else summary.top_share,
        "scale_bar": _scale_bar(width, summary.mpp) if summary and summary.mpp else None,
    }


def _scale_bar(width_px: int, mpp: float) -> dict[str, Any]:
    """A round length (1, 2 or 5 times a power of ten) of at most a fifth of the slide's width."""
    limit_um = width_px * mpp / 5
    power = 10 ** math.floor(math.log10(limit_um))
    length_um = next(step * power for step in (5, 2, 1) if step * power <= limit_um)
    label = f"{length_um / 1000:g}\u202fmm" if length_um >= 1000 else f"{length_um:g}\u202fµm"
    return {"percent": 100 * length_um / mpp / width_px, "label": label}


def _path_data(polygon: NDArray[np.floating]) -> str:
    points = " L".join(f"{x:.0f} {y:.0f}" for x, y in np.asarray(polygon, np.float64).reshape(-1, 2))
    return f"M{points} Z" if points else ""


def _made_by(report: Report) -> list[tuple[str, str]]:
    """Rows of the table 'How this was made', in reading order; what is not known is left out."""
    made = report.provenance
    rows: list[tuple[str, str | None]] = [("Written", made.created)]
    rows += [(_label(key), None if value is None else _plain(value)) for key, value in report.model.items()]
    rows.append(("Tile encoder", made.encoder))
    rows.append(("Encoder weights (sha256)", made.encoder_weights_sha256))
    if report.mean_logprob is not None:
        probability = math.exp(report.mean_logprob)
        rows.append(
            (
                "Mean log-probability of a token",
                f"{report.mean_logprob:.3f} (probability {probability:.2f}); how fluent the model found "
                "its own text, not how likely it is to be right",
            )
        )
    rows.append(("Time taken", None if made.seconds is None else f"{made.seconds:.1f}\u202fs"))
    rows.append(("Software", ", ".join(f"{name} {version}" for name, version in made.versions.items()) or None))
    return [(label, value) for label, value in rows if value]


def _label(key: str) -> str:
    words = key.replace("_", " ")
    return "Report model" if words in ("name", "model") else words[:1].upper() + words[1:]


def _plain(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(image)
    picture.thumbnail((_INDEX_THUMBNAIL_PX, _INDEX_THUMBNAIL_PX))
    return np.asarray(picture, np.uint8)


def _png_uri(image: NDArray[np.uint8]) -> str:
    return _data_uri(image, "png", optimize=True)


def _jpeg_uri(image: NDArray[np.uint8]) -> str:
    return _data_uri(image, "jpeg", quality=90)


def _data_uri(image: NDArray[np.uint8], kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
