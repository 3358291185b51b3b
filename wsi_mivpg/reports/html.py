"""HTML pages: one per case, which holds all that it shows, and an index of all cases, with pictures beside it.

A page needs no network. All text is escaped; the only scripts are the package's own and the
bundled OpenSeadragon, named by their hashes in the page's content security policy.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from wsi_mivpg.atomic import write_text
from wsi_mivpg.colour_map import STOPS
from wsi_mivpg.reports.case_view import page_data, panel_view, tile_views
from wsi_mivpg.reports.origin import made_by
from wsi_mivpg.reports.panel import SlidePanel
from wsi_mivpg.reports.report import DISCLAIMER, Report
from wsi_mivpg.reports.support import pieces, supports
from wsi_mivpg.reports.trusting import parts, verdict

_CASE_SCRIPTS = ("templates/slide.js", "templates/tile.js", "templates/case.js")


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
    """Return the page of a case with a viewer per slide; no panels give a page of text, tiles and tables."""
    found, tiles = supports(report)
    scripts = [_read(*_CASE_SCRIPTS)]
    if any(panel.thumbnail is not None for panel in panels):
        scripts.insert(0, _open_seadragon())
    return (
        _environment()
        .get_template("case.html.j2")
        .render(
            report=report,
            supports=found,
            pieces=list(pieces(report)),
            parts=[parts(report, sentence) for sentence in report.sentences],
            verdict=verdict(report),
            panels=[panel_view(panel, report) for panel in panels],
            tiles=tile_views(tiles, panels),
            data=page_data(report, found, tiles, panels),
            made_by=made_by(report),
            stops=STOPS,
            styles=_read("templates/style.css", "templates/case.css"),
            scripts=scripts,
        )
    )


def index_page(
    reports: Iterable[Report], n_reports: int, failures: Mapping[str, str], pictures: Callable[[str], str | None]
) -> Iterator[str]:
    """Yield the page that lists every case, and every input that failed (name -> reason), piece by piece.

    Args:
        reports: linked to `file_name(case_id)` in the same folder; read one after the other, none is kept.
        n_reports: how many they are.
        failures: what gave no report, and why.
        pictures: case_id -> the address of its picture, relative to the page; None where there is none.
    """
    return (
        _environment()
        .get_template("index.html.j2")
        .generate(
            reports=reports,
            n_reports=n_reports,
            failures=failures,
            pictures=pictures,
            disclaimer=DISCLAIMER,
            styles=_read("templates/style.css", "templates/index.css"),
            scripts=[_read("templates/index.js")] if n_reports else [],
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
    environment.filters["percent"] = _percent
    environment.filters["hash"] = lambda script: base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment


def _percent(share: float) -> str:
    if 0.995 <= share < 1:
        return ">\u202f99\u202f%"  # nothing that is less is called all
    return f"{share * 100:.{0 if share >= 0.1 else 1}f}\u202f%"


@cache
def _read(*names: str) -> Markup:
    """Return the package's own files one after the other; they are code and stay as they are."""
    folder = resources.files("wsi_mivpg.reports")
    return Markup("".join((folder / name).read_text(encoding="utf-8") for name in names))


@cache
def _open_seadragon() -> Markup:
    # The licence asks to go along with every copy, and a page is one.
    licence = _read("assets/openseadragon.LICENSE.txt")
    return Markup(f"/*!\n{licence}*/\n{_read('assets/openseadragon.min.js')}")
