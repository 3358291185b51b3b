"""A page is readable: in light and dark, at any size, without a script, and on paper."""

from pathlib import Path
from typing import Any

import pytest

from tests.reports.pages import TEXTS, case, case_page, opened
from wsi_mivpg.reports import index_page, render_case

# Contrast of every visible text with what is painted behind it, as WCAG 2 computes it.
CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = channels(getComputedStyle(at).backgroundColor);
      if (alpha > 0.8) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("svg, script, .hidden")) continue;
    const ink = luminance(channels(getComputedStyle(element).color).slice(0, 3));
    const [light, dark] = [ink, luminance(behind(element))].sort((a, b) => b - a);
    found.push([walk.currentNode.data.trim().slice(0, 40), (light + 0.05) / (dark + 0.05)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_aa_asks_for(scheme: str, browser: Any, tmp_path: Path):
    with opened(browser, tmp_path, case_page(), color_scheme=scheme) as page:
        page.click("#sentence-2")
        page.click(".evidence.active summary")
        contrasts = page.evaluate(CONTRASTS)
        page.click(".evidence.active button.tile >> nth=0")
        contrasts += page.evaluate(CONTRASTS)
    assert len(contrasts) > 80
    assert {text: round(ratio, 2) for text, ratio in contrasts if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_overview_has_that_contrast_too(scheme: str, browser: Any, tmp_path: Path):
    report, _ = case()
    index = "".join(index_page([report], 1, {"bad.svs": "not a slide"}, {}.get))
    with opened(browser, tmp_path, index, color_scheme=scheme) as page:
        contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 5
    assert {text: round(ratio, 2) for text, ratio in contrasts if ratio < 4.5} == {}


def test_without_a_script_text_picture_map_and_every_sentences_tiles_are_there(browser: Any, tmp_path: Path):
    with opened(browser, tmp_path, case_page(), java_script_enabled=False) as page:
        assert page.locator(".ground").is_visible()
        assert page.locator(".still .heat").is_visible()
        assert all(TEXT in page.inner_text(".text") for TEXT in TEXTS)
        assert [card.is_visible() for card in page.locator(".evidence").all()] == [True] * 4
        assert not any(control.is_visible() for control in page.locator(".controls, input, dialog").all())
        page.click("#sentence-3")  # a plain link to its evidence
        assert page.url.endswith("#evidence-sentence-3")


def test_on_paper_there_are_picture_map_and_all_evidence_but_no_controls(browser: Any, tmp_path: Path):
    with opened(browser, tmp_path, case_page()) as page:
        page.click("#sentence-1")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.locator(".ground").is_visible()
        assert page.locator(".still .heat").is_visible()
        assert not page.locator(".live").is_visible()
        assert not any(control.is_visible() for control in page.locator(".controls, input").all())
        assert [card.is_visible() for card in page.locator(".evidence").all()] == [True] * 4
        assert "No better than random" in page.inner_text(".dock")
        ground, well = page.locator(".ground").bounding_box(), page.locator(".viewer").bounding_box()
        assert ground["height"] > 200
        assert well["height"] > ground["height"]
        tops = [
            page.locator(part).bounding_box()["y"]
            for part in (".text", ".ground", ".evidence >> nth=0", ".origin >> nth=0")
        ]
        assert tops == sorted(tops)
        assert page.evaluate("getComputedStyle(document.querySelector('.text')).color") == "rgb(0, 0, 0)"
        assert len(page.pdf(format="A4")) > 10_000


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720), (1024, 768), (390, 844)])
def test_nothing_is_wider_than_the_window_and_the_slide_is_large(size: tuple[int, int], browser: Any, tmp_path: Path):
    texts = tuple(f"Sentence {number} with some words and one very{'long' * 30} word." for number in range(40))
    report, panels = case(case_id="x" * 300, texts=texts, method="gradient")
    with opened(browser, tmp_path, render_case(report, panels), viewport={"width": size[0], "height": size[1]}) as page:
        page.wait_for_selector(".live[data-key=report]")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        captions = page.eval_on_selector_all(
            ".active .tile .about", "all => all.map(one => [one.scrollWidth, one.clientWidth])"
        )
        assert all(needed <= given for needed, given in captions)
        live = page.locator(".live").bounding_box()
        assert live["width"] > (0.55 if size[0] >= 1060 else 0.9) * size[0]
        assert live["height"] > 0.55 * size[1]
        page.locator("#sentence-40").focus()
        page.wait_for_selector(".live[data-key=sentence-40]")
        box = page.locator("#sentence-40").bounding_box()
        assert 0 <= box["y"] < size[1]
