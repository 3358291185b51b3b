"""The page of a case, used as a reader uses it, in a real browser."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.reports.pages import TILES, case, case_page, opened
from wsi_mivpg.reports import SlidePanel, render_case

CORNERS = list(TILES)


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    with opened(browser, tmp_path, case_page()) as tab:
        shows(tab, "report")
        yield tab


def shows(tab: Any, key: str, slide: int = 0) -> None:
    """Wait until the slide shows this map, then check that text, evidence and boxes are of it too."""
    tab.locator(".live").nth(slide).and_(tab.locator(f"[data-key={key}]")).wait_for()
    assert tab.eval_on_selector_all(".evidence.active", "all => all.map(one => one.dataset.key)") == [key]
    active = tab.eval_on_selector_all(".sentence.active", "all => all.map(one => one.dataset.key)")
    assert active == ([] if key == "report" else [key])


def until(tab: Any, expression: str) -> None:
    """Wait until a JavaScript expression holds; Playwright's own waiting needs the eval that the page forbids."""
    for _ in range(200):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(25)
    raise AssertionError(f"never true: {expression}")


def on_screen(tab: Any, x: float, y: float) -> tuple[float, float]:
    """Return where level-0 (x, y) of the first slide is in the window, by the layers over the slide."""
    return tab.evaluate(
        """([x, y]) => {
          const point = new DOMPoint(x, y).matrixTransform(document.querySelector(".live .layers").getScreenCTM());
          return [point.x, point.y];
        }""",
        [x, y],
    )


def pixel(tab: Any, x: float, y: float) -> np.ndarray:
    """Return the colour, int (3,), that the window shows at level-0 (x, y) of the first slide."""
    column, row = on_screen(tab, x, y)
    image = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB"), int)
    return image[int(row), int(column)]


def settled(tab: Any) -> None:
    """Wait until the slide has stopped moving and loading."""
    last = None
    while (now := (tab.evaluate("document.querySelector('.live').dataset.perPx"), tab.screenshot())) != last:
        last = now
        tab.wait_for_timeout(150)


def middle(number: int) -> tuple[float, float]:
    x, y = CORNERS[number]
    return x + 100, y + 100


def looks(tab: Any, place: tuple[float, float], colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel(tab, *place) - colour).max() < 12)


YELLOW = np.array((253, 231, 37))


def halfway(number: int) -> tuple[int, int, int]:
    """Return the tile's colour under a map of half opacity."""
    red, green, blue = (YELLOW + np.array(TILES[CORNERS[number]])) // 2
    return int(red), int(green), int(blue)


def test_pointing_at_a_sentence_shows_its_map_and_leaving_it_the_reports(page: Any):
    assert looks(page, middle(2), halfway(2))
    assert looks(page, middle(0), TILES[CORNERS[0]])
    page.hover("#sentence-1")
    shows(page, "sentence-1")
    assert looks(page, middle(0), halfway(0))
    assert looks(page, middle(2), TILES[CORNERS[2]])
    assert page.locator(".showing").inner_text() == "Map of sentence 1"
    page.hover("h1")
    shows(page, "report")


def test_moving_to_a_sentence_with_the_keyboard_shows_its_map(page: Any):
    page.focus("#sentence-1")
    shows(page, "sentence-1")
    page.keyboard.press("Tab")
    shows(page, "sentence-2")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_enter_keeps_a_sentence_and_goes_to_its_tiles_and_escape_goes_back(page: Any):
    page.focus("#sentence-3")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "evidence-sentence-3"
    shows(page, "sentence-3")
    page.hover("#sentence-1")
    shows(page, "sentence-1")
    page.hover("h1")
    shows(page, "sentence-3")
    page.keyboard.press("Escape")
    shows(page, "report")
    assert page.evaluate("document.activeElement.id") == "sentence-3"


def test_a_tile_opens_large_names_the_sentences_it_supports_and_gives_the_focus_back(page: Any):
    page.click("#sentence-2")
    tile = page.locator(".evidence.active button.tile").nth(1)  # the first tile of `TILES`: of all three sentences
    tile.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    assert "x 800, y 400" in dialog.locator("h2").inner_text()
    assert dialog.locator("li").all_inner_texts() == [
        "The whole report: 3rd of its tiles, 17\u202f%",
        "Sentence 1 · 1st of its tiles, 50\u202f%\nAdenocarcinoma is present.",
        "Sentence 2 · 2nd of its tiles, 25\u202f%; no better than random\nNo necrosis.",
        "Sentence 3 · 2nd of its tiles, 25\u202f%\nThe margin is free.",
    ]
    assert dialog.locator(".picture").bounding_box()["width"] > 400
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.dataset.tile") == tile.get_attribute("data-tile")
    shows(page, "sentence-2")


def test_from_a_large_tile_a_link_leads_to_the_sentence(page: Any):
    page.click(".evidence.active button.tile >> nth=2")
    page.click("dialog a >> text=Sentence 3")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.id") == "sentence-3"
    page.hover("h1")
    shows(page, "sentence-3")
    page.click(".evidence.active >> text=Whole report")
    shows(page, "report")


def test_a_click_on_a_tile_of_the_slide_opens_it(page: Any):
    x, y = on_screen(page, *middle(1))
    page.mouse.click(x, y)
    page.wait_for_selector("dialog[open]")
    assert "x 1\u202f600, y 400" in page.inner_text("dialog h2")


def test_the_slide_zooms_to_a_tile_and_everything_stays_in_its_place(page: Any):
    page.locator("[data-layer=heat]").fill("0")
    per_px = "Number(document.querySelector('.live').dataset.perPx)"
    before = page.evaluate(per_px)
    page.click(".evidence.active button.tile >> nth=1")
    page.click("dialog >> text=Show on the slide")
    until(page, f"{per_px} < {before} / 1.9")
    settled(page)
    x, y = CORNERS[1]
    inside = TILES[CORNERS[1]]
    assert page.evaluate("document.activeElement.closest('.live') !== null")
    # Within 4 px of level 0, half a px of the overview, on each side of every edge.
    for place, within in (
        ((x + 8, y + 90), True),
        ((x - 8, y + 90), False),
        ((x + 392, y + 390), True),
        ((x + 408, y + 90), False),
    ):
        page.evaluate("document.querySelector('.live .boxes').style.visibility = 'hidden'")
        assert looks(page, place, inside if within else (235, 235, 235)), place
    page.click("[data-do=whole]")
    until(page, f"Math.abs({per_px} - {before}) < 0.01")


def test_zooming_in_shows_detail_that_the_overview_does_not_hold(page: Any):
    page.locator("[data-layer=heat]").fill("0")
    for _ in range(3):
        page.click("[data-do=in]")
    until(page, "Number(document.querySelector('.live').dataset.perPx) < 0.7")
    settled(page)
    assert pixel(page, 1602, 1150).max() < 60
    assert pixel(page, 1606, 1150).min() > 195


def test_keys_never_turn_the_slide_away_from_its_map(page: Any):
    page.locator("[data-layer=heat]").fill("0")
    page.focus(".live .openseadragon-canvas")
    for key in "rRf":
        page.keyboard.press(key)
    settled(page)
    for number in range(3):
        assert looks(page, middle(number), TILES[CORNERS[number]])


def test_the_layers_answer_to_their_controls(page: Any):
    page.locator("[data-layer=heat]").fill("0")
    assert looks(page, middle(2), TILES[CORNERS[2]])
    for name in ("boxes", "outline"):
        page.uncheck(f"[data-layer={name}]")
        assert page.evaluate(f"getComputedStyle(document.querySelector('.live .{name}')).visibility") == "hidden"


def test_each_sentence_says_whether_its_tiles_do_better_than_random(page: Any):
    for number, words in ((1, "hurts this sentence more"), (2, "No better than random"), (3, "was not measured")):
        page.hover(f"#sentence-{number}")
        assert words in page.inner_text(".evidence.active .verdict")
    assert page.get_attribute("#sentence-2", "aria-describedby") == "doubt"
    assert "do no better than random" in page.inner_text("#doubt")
    page.click("#sentence-2")
    page.click(".evidence.active summary")
    figures = page.inner_text(".evidence.active details")
    assert "+0.41 nats (95\u202f% -0.2 to +0.6)" in figures
    assert "attention" in figures.lower()


def test_each_slide_of_a_case_has_its_viewer_and_its_own_maps(browser: Any, tmp_path: Path):
    report, (one, two) = case(slide_ids=("a", "b"))
    second = SlidePanel(two.slide_id, None, two.slide_size_px, (), two.heatmap, {}, {0: two.sentence_heatmaps[1]})
    with opened(browser, tmp_path, render_case(report, [one, second])) as page:
        shows(page, "report", 1)
        heat = "document.querySelectorAll('.live')[{}].querySelector('.heat').getAttribute('href')"
        of_report = page.evaluate(heat.format(1))
        page.hover("#sentence-1")
        shows(page, "sentence-1", 1)
        assert page.evaluate(heat.format(1)) not in (None, of_report, page.evaluate(heat.format(0)))
        assert "could not be read" in page.locator(".viewer").nth(1).inner_text()
        # The second slide has no map of this sentence, and no tile of it.
        page.hover("#sentence-2")
        shows(page, "sentence-2", 1)
        assert page.evaluate(heat.format(1)) is None
        page.locator("text=Enlarge").first.click()
        assert [viewer.is_visible() for viewer in page.locator(".viewer").all()] == [True, False]


def test_a_report_without_sentences_is_read_as_before(browser: Any, tmp_path: Path):
    report, panels = case(sentences=(), text="Lung, biopsy: plain.")
    with opened(browser, tmp_path, render_case(report, panels)) as page:
        shows(page, "report")
        assert page.inner_text(".text") == "Lung, biopsy: plain."
        page.click("button.tile >> nth=0")
        assert page.locator("dialog li").all_inner_texts() == ["The whole report: 1st of its tiles, 50\u202f%"]


def test_sentences_whose_tiles_were_not_weighed_lead_nowhere_and_the_page_says_so_once(browser: Any, tmp_path: Path):
    report, panels = case()
    bare = {"method": None, "top_tiles": (), "faithfulness": None, "confidence": 0.9}
    report = report.model_copy(update={"sentences": tuple(one.model_copy(update=bare) for one in report.sentences)})
    with opened(browser, tmp_path, render_case(report, panels)) as page:
        shows(page, "report")
        assert page.locator(".text sup").all_inner_texts() == ["1", "2", "3"]
        assert page.locator(".text a").count() == 0
        # Pointing at one leaves the report's map and tiles where they are.
        page.hover(".sentence >> nth=1")
        page.click(".sentence >> nth=1")
        shows(page, "report")
        assert page.inner_text(".showing") == "Map of the whole report"
        (hint,) = [one for one in page.locator(".hint").all_inner_texts() if "explain" in one]
        assert hint == (
            "What each sentence rests on was not asked for: wsi-mivpg explain finds and tests it. The tiles shown are "
            "those of the whole report."
        )
        assert "Point at a sentence" not in page.inner_text("body")
        assert page.locator(".evidence").count() == 1
        page.click("button.tile >> nth=0")
        assert page.locator("dialog li").all_inner_texts() == ["The whole report: 1st of its tiles, 50\u202f%"]
    bare_report = report.model_copy(update={"top_tiles": ()})
    with opened(browser, tmp_path, render_case(bare_report, [])) as page:
        assert page.locator(".dock").count() == 0
        assert "whole report" not in page.inner_text("body")


def test_a_report_without_any_picture_still_answers(browser: Any, tmp_path: Path):
    report, _ = case()
    with opened(browser, tmp_path, render_case(report, [])) as page:
        page.hover("#sentence-2")
        assert "No better than random" in page.inner_text(".evidence.active")
        page.click("#sentence-2")
        page.click(".evidence.active button.tile >> nth=0")
        assert "Sentence 2" in page.inner_text("dialog")
