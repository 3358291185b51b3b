"""A small case with known truth for the tests of its page, and the page opened in a browser that is watched."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wsi_mivpg.reports import (
    Faithfulness,
    Provenance,
    Report,
    Sentence,
    SlidePanel,
    SlideSummary,
    TopTile,
    ZoomLevel,
    render_case,
    zoom_levels,
)

SLIDE_PX = (3200, 2400)
SIDE_PX = 400
MPP = 0.25
# Level-0 corner of a tile -> the colour of the whole tile on the slide.
TILES = {(800, 400): (200, 40, 40), (1600, 400): (40, 160, 40), (2400, 1600): (40, 40, 200)}
# In its middle the slide has stripes of 4 px, dark first, that only its deepest levels resolve.
STRIPES = (slice(1400, 1800), slice(1100, 1300))
TEXTS = ("Adenocarcinoma is present.", "No necrosis.", "The margin is free.")


def read_region(x: float, y: float, size_px: int | tuple[int, int], mpp: float) -> np.ndarray:
    """Read the slide: pale, with the tiles of `TILES` in their colours, and `STRIPES`; uint8 (h, w, 3)."""
    width, height = (size_px, size_px) if isinstance(size_px, int) else size_px
    at_x, at_y = (begin + (np.arange(count) + 0.5) * mpp / MPP for begin, count in ((x, width), (y, height)))
    pixels = np.full((height, width, 3), 235, np.uint8)
    for (left, top), colour in TILES.items():
        inside = np.ix_((at_y >= top) & (at_y < top + SIDE_PX), (at_x >= left) & (at_x < left + SIDE_PX))
        pixels[inside] = colour
    columns, rows = STRIPES
    dark = (at_x >= columns.start) & (at_x < columns.stop) & (at_x // 4 % 2 == 0)
    pixels[np.ix_((at_y >= rows.start) & (at_y < rows.stop), dark)] = 20
    return pixels


def faithfulness(better: bool) -> Faithfulness:
    low = 0.2 if better else -0.2
    return Faithfulness(
        deletion=0.41,
        deletion_interval=(low, 0.6),
        insertion=0.52,
        insertion_interval=(low, 0.8),
        deletion_over_feature_norm=0.1,
        insertion_over_feature_norm=0.2,
        deletion_over_uniform=0.3,
        insertion_over_uniform=0.4,
        fractions=(0.05, 0.2),
        random_orders=8,
    )


def case(
    case_id: str = "case-1",
    slide_ids: tuple[str, ...] = ("slide-a",),
    texts: tuple[str, ...] = TEXTS,
    word: str = "plain",
    method: str = "attention",
    **changes: Any,
) -> tuple[Report, list[SlidePanel]]:
    """Return a report whose sentence N rests on tile N of `TILES` and on the first, and its slides' pictures.

    Sentence 1 does better than random, sentence 2 does not, and sentence 3 was not measured.
    """
    corners = list(TILES)

    def top(*numbers: int) -> tuple[TopTile, ...]:
        places = [corners[number % len(corners)] for number in dict.fromkeys(numbers)]
        return tuple(
            TopTile(slide_id=slide_ids[0], x=x, y=y, size_l0_px=SIDE_PX, weight=0.5 / rank)
            for rank, (x, y) in enumerate(places, 1)
        )

    sentences, start = [], 0
    for number, text in enumerate(texts):
        measured = None if number == 2 else faithfulness(number != 1)
        sentences.append(
            Sentence(
                text=text,
                start=start,
                end=start + len(text),
                logprob=-3,
                method=method,
                top_tiles=top(number, 0),
                faithfulness=measured,
            )
        )
        start += len(text) + 1
    fields: dict[str, Any] = {
        "case_id": case_id,
        "text": "\n".join(texts),
        "provenance": Provenance(created=word, encoder=word, versions={word: word}),
        "model": {"name": word},
        "slides": tuple(
            SlideSummary(
                slide_id=name, n_tiles=48, mpp=MPP, mpp_source=word, target_mpp=0.5, tile_px=200, top_share=0.3
            )
            for name in slide_ids
        ),
        "top_tiles": top(2, 1, 0),
        "sentences": tuple(sentences),
        "warnings": (f"beware of {word}",),
    }
    report = Report.model_validate({**fields, **changes})
    return report, [panel(name, len(texts)) for name in slide_ids]


def panel(slide_id: str, n_sentences: int) -> SlidePanel:
    """Return a slide whose map of sentence N is high at tile N of `TILES` alone; the report's, at the last."""
    thumbnail = read_region(0, 0, (400, 300), MPP * 8)
    corners = list(TILES)
    return SlidePanel(
        slide_id=slide_id,
        thumbnail=thumbnail,
        slide_size_px=SLIDE_PX,
        outline_polygons=[np.array([[400, 200], [3000, 200], [3000, 2200], [400, 2200], [400, 200]])],
        heatmap=heatmap(corners[-1]),
        tile_images={(x, y): read_region(x, y, 200, 0.5) for x, y in TILES},
        sentence_heatmaps={number: heatmap(corners[number % len(corners)]) for number in range(n_sentences)},
        zoom=levels(),
    )


@cache
def levels() -> list[ZoomLevel]:
    return zoom_levels(read_region, SLIDE_PX, MPP, read_region(0, 0, (400, 300), MPP * 8))


def heatmap(corner: tuple[int, int]) -> np.ndarray:
    """Return a map, uint8 (75, 100, 4), that covers one tile; one px is 32 px of level 0."""
    image = np.zeros((75, 100, 4), np.uint8)
    x, y = np.array(corner) // 32
    image[y : y + SIDE_PX // 32 + 1, x : x + SIDE_PX // 32 + 1] = (253, 231, 37, 255)
    return image


@contextmanager
def opened(browser: Any, folder: Path, page: str, **context: Any) -> Iterator[Any]:
    """Open a page (its HTML) as a file; it must say nothing on the console, fail nowhere and ask for nothing."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    complaints: list[str] = []
    options = {"viewport": {"width": 1280, "height": 800}, **context}
    with browser.new_context(**options) as made:
        tab = made.new_page()
        tab.on("console", lambda message: complaints.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        own = path.as_uri()
        tab.on(
            "request",
            lambda request: (
                None
                if request.url.split("#")[0] == own or request.url.startswith("data:image/")
                else complaints.append(f"request: {request.url[:100]}")
            ),
        )
        tab.goto(own)
        yield tab
        assert complaints == []


def case_page(*arguments: Any, **changes: Any) -> str:
    """Return the page of `case`."""
    return render_case(*case(*arguments, **changes))
