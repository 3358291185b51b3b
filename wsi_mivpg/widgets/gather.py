"""From slides, a report, its evidence or a user's own arrays to the one `Scene` that the viewer shows.

Everything is checked here, so that a mistake is an error in Python and not an empty picture in the browser.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import ViewError, WsiMivpgError
from wsi_mivpg.reports import Faithfulness, Report, Sentence, SlideSummary
from wsi_mivpg.reports.support import map_method
from wsi_mivpg.slides import Slide, open_slide
from wsi_mivpg.slides.address import is_address
from wsi_mivpg.widgets.scene import Row, Scene, ShownSlide

Weights = npt.ArrayLike | Mapping[str, npt.ArrayLike]
Maps = dict[str, npt.NDArray[np.float32]]

WHOLE_REPORT = "Whole report"
_ONLY_TOP_TILES = "Only the top tiles are shown: the evidence file with the weights of all tiles is not there."
_NOT_FAITHFUL = "Its map does no better than random tiles: it does not show what these words rest on."


class HasTiles(Protocol):
    """What says where a slide's tiles are: a `FeatureBag`, a `TilePlan`, or `Tiles`."""

    @property
    def coords(self) -> npt.NDArray[np.int64]:
        """(N, 2) int64, level-0 px, upper left corners (x, y); -1 where they are not known."""

    @property
    def tile_size_l0(self) -> float | None:
        """Side of a tile in level-0 px."""

    @property
    def slide_size_px(self) -> tuple[int, int] | None:
        """(width, height) of level 0."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles of one slide from arrays of your own; see `HasTiles`."""

    coords: npt.NDArray[np.int64]
    tile_size_l0: float | None
    slide_size_px: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Pixels:
    """A slide that can be read, or why it cannot; `size_px` is None where nobody knows it."""

    slide_id: str
    slide: Slide | None
    size_px: tuple[int, int] | None
    mpp: float | None
    remark: str = ""


def gathered(
    slides: Slide | Path | str | Sequence[Slide | Path | str] = (),
    *,
    report: Report | None = None,
    evidence: Path | str | None = None,
    tiles: HasTiles | Sequence[HasTiles] | None = None,
    weights: Weights | None = None,
    labels: Sequence[str] = (),
    folder: Path = Path(),
) -> Scene:
    """Put a scene together from what a user has; see `SlideViewer` for the arguments.

    Raises:
        WsiMivpgError: a slide or the evidence cannot be read, numbers of slides, tiles and weights differ, or nothing
            was given to show.
    """
    given = [slides] if isinstance(slides, Slide | Path | str) else list(slides)
    sources = [_opened(one) for one in given] or [_named(one, folder) for one in (report.slides if report else ())]
    remarks: list[str] = []
    top_tiles_only = False
    rows: list[Row] = []
    if tiles is not None:
        placed = _told_tiles(tiles, sources)
        maps = _checked_maps(weights, sum(len(one.coords) for one in placed.values()))
    elif evidence is not None:
        placed, maps, rows = _evidence_maps(Path(evidence), sources, by_order=bool(given))
    elif (file := _own_evidence(report, folder)) is not None:
        placed, maps, rows = _evidence_maps(file, sources, by_order=bool(given))
    else:
        placed, maps = _top_tiles(report)
        top_tiles_only = bool(maps)
        remarks += [_ONLY_TOP_TILES] if top_tiles_only else []
    shown = _joined(sources, placed)
    if not shown:
        raise ViewError("there is nothing to show; give slides, tiles, or a report that names its slides")
    if labels or not rows or (report is not None and report.sentences):
        tested = [row.remarks for row in rows]
        rows = _rows(report, maps, labels)
        if len(tested) == len(rows) and not labels:  # by every method, and not only by the one that the report shows
            rows = [replace(row, remarks={**row.remarks, **one}) for row, one in zip(rows, tested, strict=True)]
    return Scene(shown, rows=rows, maps=maps, report=report, remarks=remarks, top_tiles_only=top_tiles_only)


def _own_evidence(report: Report | None, folder: Path) -> Path | None:
    """Return the evidence that a report names, if it is there."""
    if report is None or not report.evidence or not (folder / report.evidence).is_file():
        return None
    return folder / report.evidence


def _told_tiles(tiles: HasTiles | Sequence[HasTiles], sources: Sequence[_Pixels]) -> dict[str, HasTiles]:
    """Give tiles the names of the slides, which come in the same order."""
    listed = list(tiles) if isinstance(tiles, Sequence) else [tiles]
    if sources and len(listed) != len(sources):
        raise ViewError(f"{len(sources)} slides but tiles of {len(listed)}; give one bag or plan for each slide")
    names = [str(getattr(one, "slide_id", f"slide {number}")) for number, one in enumerate(listed, 1)]
    names = [source.slide_id for source in sources] or names
    if len(set(names)) < len(names):
        raise ViewError(f"two slides have one name ({', '.join(names)}); rename one of the files")
    return dict(zip(names, listed, strict=True))


def _evidence_maps(
    path: Path, sources: list[_Pixels], *, by_order: bool
) -> tuple[dict[str, HasTiles], Maps, list[Row]]:
    """Read tiles, maps and sentences; slides whose files have other names take those of the evidence, in order."""
    from wsi_mivpg.evidence import Curves, read_evidence

    found = read_evidence(path)
    ids = [slide.slide_id for slide in found.slides]
    if by_order and not {source.slide_id for source in sources} <= set(ids):
        if len(ids) != len(sources):
            raise ViewError(f"{path}: evidence over slides {', '.join(ids)}, but {len(sources)} slides were given")
        sources[:] = [replace(source, slide_id=name) for source, name in zip(sources, ids, strict=True)]
    placed: dict[str, HasTiles] = {slide.slide_id: slide for slide in found.slides}
    rows = [*(Row(text, is_sentence=True) for text in found.texts()[:-1]), Row(WHOLE_REPORT)]
    doubts: list[dict[str, str]] = [{} for _ in rows]
    for method, curves in found.curves.items():
        for doubts_of_row, curves_of_row in zip(doubts, curves, strict=True):
            arrays: dict[str, Any] = dict(curves_of_row)
            doubts_of_row[method] = _doubt(Faithfulness(**Curves(**arrays).summary()))
    rows = [replace(row, remarks=one) for row, one in zip(rows, doubts, strict=True)]
    return placed, _checked_maps(found.weights, len(found)), rows


def _opened(given: Slide | Path | str) -> _Pixels:
    slide = given if isinstance(given, Slide) else open_slide(given)
    return _Pixels(slide.path.stem, slide, slide.size_px, slide.mpp)


def _named(summary: SlideSummary, folder: Path) -> _Pixels:
    """Open a slide that a report names, from its folder or from here; one that is gone is shown by its tiles alone."""
    stated = (summary.width_px, summary.height_px)
    size_px = (stated[0], stated[1]) if stated[0] and stated[1] else None
    remark = "The report does not say where this slide is."
    if summary.path is not None:
        try:
            mpp = summary.mpp if summary.mpp_source == "user" else None
            near = folder / summary.path
            slide = open_slide(near if not is_address(summary.path) and near.exists() else summary.path, mpp=mpp)
            return _Pixels(summary.slide_id, slide, slide.size_px, slide.mpp)
        except WsiMivpgError as problem:
            remark = f"The slide cannot be read: {problem}"
    return _Pixels(summary.slide_id, None, size_px, summary.mpp, remark)


def _joined(sources: Sequence[_Pixels], placed: Mapping[str, HasTiles]) -> list[ShownSlide]:
    """Give each slide its tiles by name; tiles come in the order of `placed`, slides without tiles last."""
    by_name = {source.slide_id: source for source in sources}
    ordered = [by_name.get(name, _Pixels(name, None, None, None, "No slide was given.")) for name in placed]
    ordered += [source for source in sources if source.slide_id not in placed]
    return [_shown(source, placed.get(source.slide_id)) for source in ordered]


def _shown(source: _Pixels, tiles: HasTiles | None) -> ShownSlide:
    coords = np.empty((0, 2), np.int64) if tiles is None else np.asarray(tiles.coords, np.int64).reshape(-1, 2)
    side = float(tiles.tile_size_l0 or 0.0) if tiles is not None and bool((coords >= 0).all()) else 0.0
    size_px = source.size_px or (tiles.slide_size_px if tiles is not None else None)
    if size_px is None or min(size_px) <= 0:
        reach = np.ceil(coords.max(axis=0, initial=0) + side)
        size_px = (max(int(reach[0]), 1), max(int(reach[1]), 1))
    return ShownSlide(source.slide_id, size_px, source.mpp, source.slide, coords, side, source.remark)


def _checked_maps(weights: Weights | None, n_tiles: int) -> Maps:
    named = weights if isinstance(weights, Mapping) else {} if weights is None else {"attention": weights}
    maps = {method: np.atleast_2d(np.asarray(values, np.float32)) for method, values in named.items()}
    for method, values in maps.items():
        if values.ndim != 2 or values.shape[1] != n_tiles:
            raise ViewError(f"{method}: weights of shape {values.shape}, but the slides have {n_tiles} tiles in all")
        if not np.isfinite(values).all():
            raise ViewError(f"{method}: weights must be finite, and {int((~np.isfinite(values)).sum())} are not")
        if "/" in method:
            raise ViewError(f"{method!r} cannot be a method's name; leave out the stroke")
    if len({len(values) for values in maps.values()}) > 1:
        raise ViewError("all methods must have a weight for the same rows")
    return maps


def _top_tiles(report: Report | None) -> tuple[dict[str, HasTiles], Maps]:
    """Make maps of the tiles that a report itself holds: zero but for the top tiles of each sentence."""
    if report is None:
        return {}, {}
    rows = [*(sentence.top_tiles for sentence in report.sentences), report.top_tiles]
    places: dict[str, dict[tuple[int, int], float]] = {}
    for tile in (tile for row in rows for tile in row):
        places.setdefault(tile.slide_id, {})[(tile.x, tile.y)] = tile.size_l0_px
    if not places:
        return {}, {}
    placed: dict[str, HasTiles] = {
        name: Tiles(np.array(list(sides), np.int64), next(iter(sides.values()))) for name, sides in places.items()
    }
    columns = {
        place: n for n, place in enumerate((name, *corner) for name, sides in places.items() for corner in sides)
    }
    weights = np.zeros((len(rows), len(columns)), np.float32)
    for number, row in enumerate(rows):
        for tile in row:
            weights[number, columns[(tile.slide_id, tile.x, tile.y)]] = tile.weight
    return placed, {map_method(report): weights}


def _rows(report: Report | None, maps: Maps, labels: Sequence[str]) -> list[Row]:
    """Name the rows of the maps: as told, by the report's sentences, or by number."""
    sentences = report.sentences if report else ()
    if not maps:
        return [_sentence_row(sentence) for sentence in sentences]
    n_rows = len(next(iter(maps.values())))
    if labels:
        if len(labels) != n_rows:
            raise ViewError(f"{len(labels)} labels for weights of {n_rows} rows; give one for each")
        return [Row(label) for label in labels]
    if n_rows == 1:
        return [Row(WHOLE_REPORT if report else "Weights")]
    if sentences:
        if n_rows != len(sentences) + 1:
            raise ViewError(
                f"the report has {len(sentences)} sentences, and the weights have {n_rows} rows; give one for each "
                "sentence and a last one for the whole report, or name the rows with `labels`"
            )
        return [*(_sentence_row(sentence) for sentence in sentences), Row(WHOLE_REPORT)]
    return [Row(f"Map {number}") for number in range(1, n_rows + 1)]


def _sentence_row(sentence: Sentence) -> Row:
    measured = sentence.faithfulness
    remarks = {} if measured is None or sentence.method is None else {sentence.method: _doubt(measured)}
    return Row(sentence.shown_text, is_sentence=True, remarks=remarks)


def _doubt(measured: Faithfulness) -> str:
    return "" if measured.better_than_random else _NOT_FAITHFUL
