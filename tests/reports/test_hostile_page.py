"""Whatever a report's strings say, they stay text: nothing runs, nothing is asked for, no neighbour is turned round."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.reports.pages import TEXTS, case, opened
from wsi_mivpg.reports import render_case

HOSTILE = [
    "<script>document.title = 'ran'; alert(1)</script> </script></style></title></bdi><script>alert(2)</script>",
    """<!-- --!>"'><img src=x onerror="alert(1)"><svg onload=alert(2)></p><iframe src='https://example.org'></iframe>"""
    "<a href='javascript:alert(1)'>go</a> <style>body{display:none}</style> &lt;b&gt; \\u003cscript\\u003e",
    "{{ 7 * 7 }} {% raw %} ${7 * 7} <%= 7 * 7 %> {# no #}",
    "\u202egnitirw siht\u2066 \u2067and this\u202d \u200f.",
    "__proto__",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_words_from_outside_stay_text_and_run_nothing(words: str, browser: Any, tmp_path: Path):
    report, panels = case(
        case_id=words,
        slide_ids=(words, f"{words} 2"),
        texts=(words, *TEXTS[1:]),
        word=words,
        disclaimer=words,
        evidence=words,
    )
    with opened(browser, tmp_path, render_case(report, panels)) as page:
        page.wait_for_selector(".live[data-key=report]")
        page.hover("#sentence-1")
        page.wait_for_selector(".live[data-key=sentence-1]")
        page.click("#sentence-1")
        page.click(".evidence.active button.tile >> nth=0")

        def shown(selector: str) -> str:
            return page.locator(selector).first.text_content()

        assert shown("dialog .where bdi") == words
        assert shown("dialog li bdi") == words
        for selector in ("h1 bdi", ".viewer .name bdi", ".sentence bdi, .sentence", ".warnings bdi", ".notice span"):
            assert words in shown(selector), selector
        assert shown("#sentence-1") == f"1{words}"
        assert words in page.title()
        assert (
            page.evaluate("document.body.querySelectorAll('iframe, img:not(.ground), [onerror], [onload]').length") == 0
        )
        assert page.evaluate("getComputedStyle(document.body).display") != "none"
        assert page.evaluate("document.scripts.length") == 3  # OpenSeadragon, the page's own, and its data
        assert page.locator(".viewer").count() == 2


def test_direction_marks_turn_no_neighbour_round(browser: Any, tmp_path: Path):
    """After a name with an unclosed right-to-left override, the words that follow still stand to its right."""
    report, panels = case(slide_ids=("\u202eabc", "b"))
    with opened(browser, tmp_path, render_case(report, panels)) as page:
        page.click("button.tile >> nth=0")
        lefts = page.evaluate("""() => {
          const left = (node, at) => {
            const range = document.createRange();
            range.setStart(node, at);
            range.setEnd(node, at + 1);
            return range.getBoundingClientRect().left;
          };
          const [, name, after] = document.querySelector("dialog .where").childNodes;
          return [left(name.firstChild, 1), left(after, 2), left(after, 3)];
        }""")
    assert lefts == sorted(lefts)


def test_a_page_runs_only_its_own_scripts(browser: Any, tmp_path: Path):
    """The policy is tried: a script that is added to the page does not run."""
    page_text = render_case(*case())
    assert re.search(r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-", page_text)
    assert "unsafe-eval" not in page_text.split("</head>")[0]
    added = page_text.replace("<main", "<script>document.title = 'ran'</script><main", 1)
    tab = browser.new_page()
    refused: list[str] = []
    tab.on("console", lambda message: refused.append(message.text))
    (tmp_path / "added.html").write_text(added, encoding="utf-8")
    tab.goto((tmp_path / "added.html").as_uri())
    assert tab.title() != "ran"
    assert any("Content Security Policy" in message for message in refused)
    tab.close()


def test_the_data_of_a_page_end_no_script_element():
    report, panels = case(slide_ids=("</script><!--<script>",))
    data = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', render_case(report, panels), re.DOTALL
    )
    assert data
    assert json.loads(data[1])["panels"][0]["slide"] == "</script><!--<script>"
