import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from wsi_mivpg.errors import OutputError
from wsi_mivpg.reports import (
    Provenance,
    Report,
    SlidePanel,
    SlideSummary,
    TopTile,
    case_page,
    file_name,
    index_page,
    render_case,
    write_case,
)

HOSTILE = """<script>alert(1)</script>"><img src=x onerror='alert(2)'>{{ 7*7 }}"""
THUMBNAIL = np.full((50, 100, 3), 200, np.uint8)
HEATMAP = np.zeros((50, 100, 4), np.uint8)
OUTLINE = np.array([[0, 0], [900, 0], [900, 400.6], [0, 0]])


def report(word: str = "plain", **changes: object) -> Report:
    fields: dict[str, object] = {
        "case_id": word,
        "text": f"Lung, core biopsy: {word}.",
        "provenance": Provenance(created=word, encoder=word, versions={word: word}, seconds=1.0),
        "model": {word: word},
        "slides": (SlideSummary(slide_id=word, n_tiles=1234, mpp=0.25, mpp_source=word, top_share=0.31),),
        "top_tiles": (TopTile(slide_id=word, x=100, y=50, size_l0_px=100.5, weight=0.5),),
        "warnings": (f"beware of {word}",),
        "disclaimer": f"Demonstration only. {word}",
        "mean_logprob": -0.5,
    }
    return Report.model_validate({**fields, **changes})


class Reader(HTMLParser):
    """Collects tags, attributes and the text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_text_is_shown_and_never_run():
    panel = SlidePanel(HOSTILE, THUMBNAIL, (1000, 500), [OUTLINE], HEATMAP, {(100, 50): THUMBNAIL})
    pages = [
        (render_case(report(HOSTILE), [panel]), 3),  # OpenSeadragon, the page's own, and its data
        ("".join(index_page([report(HOSTILE)], 1, {HOSTILE: HOSTILE}, {HOSTILE: "thumbnails/x.jpg"}.get)), 1),
    ]
    for page, n_scripts in pages:
        read = Reader(page)
        assert [tag for tag, _ in read.tags].count("script") == n_scripts
        assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
        assert all((a["src"] or "").startswith(("data:image/", "thumbnails/")) for tag, a in read.tags if tag == "img")
        assert HOSTILE in read.text
        assert "49" not in re.sub(r"data:image/[^\"]*|<(style|script).*?</\1>", "", page, flags=re.DOTALL)


def test_a_page_needs_no_network_and_allows_only_its_own_scripts():
    page = case_page(report(), THUMBNAIL, [OUTLINE], HEATMAP, (1000, 500))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(hashes) == 2
    assert f"script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}'; base-uri" in page
    assert "default-src 'none'" in page
    # What the scripts ask for is watched in a real browser; the rest names no other place.
    assert not re.search(r"https?://|//cdn|@import|url\(", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))


def test_a_page_carries_the_licence_of_the_library_in_it_and_a_page_without_viewer_carries_neither():
    page = case_page(report(), THUMBNAIL, [OUTLINE], HEATMAP, (1000, 500))
    assert "Copyright (C) 2009 CodePlex Foundation" in page
    assert "AND ANY EXPRESS OR IMPLIED WARRANTIES" in page
    assert "OpenSeadragon.Viewer" not in render_case(report(), [])
    assert "<script" not in "".join(index_page([], 0, {}, {}.get))


def test_a_page_holds_report_picture_outline_slider_warning_and_origin():
    page = case_page(report(), THUMBNAIL, [OUTLINE], HEATMAP, (1000, 500))
    read = Reader(page)
    for words in (
        "Lung, core biopsy: plain.",
        "Demonstration only.",
        "beware of plain",
        "How this was made",
        "-0.500",
    ):
        assert words in read.text
    assert "M0 0 L900 0 L900 401 L0 0 Z" in page
    assert 'viewBox="0 0 1000 500"' in page
    assert any(a.get("type") == "range" and a.get("data-layer") == "heat" for _, a in read.tags)
    assert "31\u202f%" in read.text
    assert "50\u202fµm" in read.text


def test_a_page_without_picture_text_or_tiles_is_still_whole():
    bare = Report(case_id="b", text=" ", provenance=Provenance(created="now"))
    assert "The model wrote no text." in render_case(bare, [])
    assert "No map was made for this slide." in case_page(bare, THUMBNAIL, [], None, (1000, 500))


def test_a_case_of_two_slides_shows_both():
    slides = (SlideSummary(slide_id="a", n_tiles=1), SlideSummary(slide_id="b", n_tiles=2))
    panels = [SlidePanel(name, THUMBNAIL, (1000, 500)) for name in "ab"]
    page = render_case(report(slides=slides), panels)
    assert page.count("<figure") == 2
    assert "2 slides, 3 tiles read" in page


@pytest.mark.parametrize("case_id", ["../../etc/passwd", "a/b", "index", "é", "", "x" * 300, ".hidden", "a b"])
def test_any_case_id_gives_a_portable_file_name(case_id: str):
    name = file_name(case_id)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.html", name)
    assert name != "index.html"


def test_two_ids_never_share_a_file_and_a_plain_id_keeps_its_name():
    assert file_name("case-0042") == "case-0042.html"
    assert len({file_name(case_id) for case_id in ("a b", "a/b", "a-b", "a:b")}) == 4


def test_the_index_links_to_the_written_page_and_names_failures(tmp_path: Path):
    path = write_case(tmp_path, report("a/b"), [])
    index = Reader("".join(index_page([report("a/b")], 1, {"bad.svs": "not a slide"}, {}.get)))
    assert [a["href"] for tag, a in index.tags if tag == "a"] == [path.name]
    page = "".join(index_page([], 0, {"bad.svs": "not a slide"}, {}.get))
    assert "bad.svs" in page
    assert "no pathologist has checked it" in page


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_case(tmp_path / "file", report(), [])
