"""What the viewer shows of one case, and the answers to what its JavaScript asks for: tiles, places, weights.

One `Scene` serves both ways to look: the widget sends the answers through the kernel, `server` through HTTP. It
computes no weights and draws nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_mivpg.reports import Report
from wsi_mivpg.slides import Slide
from wsi_mivpg.widgets.cells import Cells, cells_of
from wsi_mivpg.widgets.pyramid import TILE_PX, SlidePyramid, last_level

JSON, JPEG, BINARY = "application/json", "image/jpeg", "application/octet-stream"
_SUPPORTING_SHARE = 0.1


@dataclass(frozen=True)
class Row:
    """One row of the maps, shown as a button: a sentence of the report, the whole report, or a map of your own.

    Attributes:
        text: its words.
        is_sentence: whether it is one of the report's.
        remarks: method -> what to beware of in its map by this method.
    """

    text: str
    is_sentence: bool = False
    remarks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ShownSlide:
    """One slide of a scene and the tiles on it.

    Attributes:
        slide_id: its name.
        size_px: (width, height) of level 0.
        mpp: microns per pixel of level 0, where known.
        slide: the open slide; None where there are no pixels and only the tiles are shown.
        coords: (N, 2) int64, level-0 px, upper left corners (x, y) of its tiles.
        tile_size_l0: side of a tile in level-0 px.
        remark: why there are no pixels.
    """

    slide_id: str
    size_px: tuple[int, int]
    mpp: float | None
    slide: Slide | None
    coords: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    tile_size_l0: float = 0.0
    remark: str = ""

    @cached_property
    def cells(self) -> Cells:
        """The grid in which its tiles are drawn."""
        return cells_of(self.coords, self.tile_size_l0)


class Scene:
    """The slides of a case and maps over their tiles.

    Attributes:
        slides: at least one; the case's tiles are theirs, slide after slide.
        rows: what the rows of the maps stand for.
        maps: method -> float32 (R, M): a weight for each row and tile of the case; may be empty.
        report: the text beside them, if there is one.
        remarks: what to beware of, beside the report's own warnings.
        top_tiles_only: whether weights of zero mean that nothing is known of a tile, which is then not drawn.
        coords: (M, 2) int64, the tiles of all slides.
        slide_of: (M,) int64, the slide that each lies on.
        first_tile: each slide's first tile among them.
    """

    def __init__(
        self,
        slides: Sequence[ShownSlide],
        *,
        rows: Sequence[Row] = (),
        maps: Mapping[str, npt.NDArray[np.float32]] | None = None,
        report: Report | None = None,
        remarks: Sequence[str] = (),
        top_tiles_only: bool = False,
    ) -> None:
        self.slides = tuple(slides)
        self.rows = tuple(rows)
        self.maps = dict(maps or {})
        self.report = report
        self.remarks = tuple(remarks)
        self.top_tiles_only = top_tiles_only
        counts = [len(slide.coords) for slide in self.slides]
        self.coords = np.concatenate([slide.coords for slide in self.slides])
        self.slide_of = np.repeat(np.arange(len(counts)), counts)
        self.first_tile: list[int] = [0, *np.cumsum(counts[:-1]).tolist()]
        self._pyramids = [None if shown.slide is None else SlidePyramid(shown.slide) for shown in self.slides]

    def describe(self) -> dict[str, Any]:
        """Return what the viewer needs to know before it asks for anything, as JSON holds it."""
        report = self.report
        return {
            "title": report.case_id if report else self.slides[0].slide_id,
            "slides": [self._described(number) for number in range(len(self.slides))],
            "rows": [asdict(row) for row in self.rows],
            "text": report.shown_text.strip() if report else "",
            "warnings": [*(report.warnings if report else ()), *self.remarks],
            "disclaimer": report.disclaimer if report else "",
            "methods": list(self.maps),
            "n_tiles": len(self.coords),
            "top_tiles_only": self.top_tiles_only,
            "first": {"method": self._first_method(), "row": self._first_row()},
        }

    def answer(self, path: str) -> tuple[str, bytes]:
        """Return the media type and the bytes of what the viewer asks for.

        Args:
            path: "scene", "coords", "cells/SLIDE", "weights/METHOD/ROW", "support/METHOD" or
                "tile/SLIDE/LEVEL/COLUMN/ROW"; slides and rows are numbers.

        Raises:
            LookupError: there is no such thing.
            SlideError: the slide or the tile cannot be read.
        """
        kind, *rest = path.split("/")
        match kind, rest:
            case "scene", []:
                return JSON, json.dumps(self.describe()).encode()
            case "coords", []:
                return BINARY, self.coords.astype("<i4").tobytes()
            case "cells", [slide]:
                number = _number(slide)
                tiles = self.slides[number].cells.tiles
                return BINARY, np.where(tiles < 0, tiles, tiles + self.first_tile[number]).astype("<i4").tobytes()
            case "weights", [method, row]:
                return BINARY, self.maps[method][_number(row)].astype("<f4").tobytes()
            case "support", [method]:
                return BINARY, np.packbits(supporting(self.maps[method]), axis=1, bitorder="little").tobytes()
            case "tile", [slide, level, column, row]:
                return JPEG, self._pyramid(_number(slide)).tile(_number(level), _number(column), _number(row))
        raise LookupError(f"the viewer has no {path!r}")

    def _pyramid(self, number: int) -> SlidePyramid:
        pyramid = self._pyramids[number]
        if pyramid is None:
            raise LookupError(f"slide {self.slides[number].slide_id} has no pixels here")
        return pyramid

    def _described(self, number: int) -> dict[str, Any]:
        shown = self.slides[number]
        cells = shown.cells
        return {
            "id": shown.slide_id,
            "width": shown.size_px[0],
            "height": shown.size_px[1],
            "mpp": shown.mpp,
            "has_pixels": shown.slide is not None,
            "remark": shown.remark,
            "tile_px": TILE_PX,
            "last_level": last_level(shown.size_px),
            "first_tile": self.first_tile[number],
            "n_tiles": len(shown.coords),
            "tile_size_l0": shown.tile_size_l0,
            "cells": {"origin": cells.origin, "size": cells.size, "shape": cells.tiles.shape},
        }

    def _first_row(self) -> int:
        """The last row is the whole report where rows are sentences."""
        return len(self.rows) - 1 if any(row.is_sentence for row in self.rows) else 0

    def _first_method(self) -> str:
        used = [one.method for one in self.report.sentences] if self.report else []
        return next((method for method in used if method in self.maps), next(iter(self.maps), ""))


def supporting(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return bool (R, M): whether a tile is in the highest tenth of a row's weights, and above zero."""
    n_tiles = weights.shape[1]
    if not n_tiles:
        return np.zeros(weights.shape, np.bool_)
    count = max(1, round(n_tiles * _SUPPORTING_SHARE))
    least = np.partition(weights, n_tiles - count, axis=1)[:, n_tiles - count]
    return np.asarray((weights >= least[:, None]) & (weights > 0))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise LookupError(f"{text!r} is not a number")
    return int(text)
