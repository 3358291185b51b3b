"""A case's page says whether its slides support the report, hides what is too uncertain, and marks doubtful numbers."""

from typing import Any

import pytest

from tests.reports.pages import case, opened
from wsi_mivpg.reports import FieldValue, Gate, Report, render_case
from wsi_mivpg.reports.showing import report_card

HOSTILE = "<script>alert(1)</script>"


def gate(name: str, passed: bool | None, explanation: str = "Said so.") -> Gate:
    return Gate(name=name, value=1.0, threshold=None if passed is None else 0.5, passed=passed, explanation=explanation)


def trusted(*gates: Gate, word: str = "plain") -> tuple[Report, list[Any]]:
    """Sentence 2 is not assessable, the third has a marked number and an alternative."""
    report, panels = case(texts=("Adenocarcinoma is present.", "No necrosis.", "The margin is 4 mm."), word=word)
    first, second, third = report.sentences
    start = report.text.index("4 mm")
    sentences = (
        first.model_copy(update={"confidence": 0.91}),
        second.model_copy(update={"confidence": 0.08, "assessable": False}),
        third.model_copy(
            update={
                "confidence": 0.6,
                "unverified_numbers": ((start, start + 4),),
                "alternatives": (f"The margin is 9 mm {word}.",),
            }
        ),
    )
    return report.model_copy(update={"sentences": sentences, "gates": gates}), panels


def test_the_page_shows_what_the_gates_found_and_what_is_not_sure(browser: Any, tmp_path: Any) -> None:
    made = trusted(gate("image dependence", False, "It depends on nothing."), gate("distribution", True))
    with opened(browser, tmp_path, render_case(*made)) as page:
        band = page.locator(".trust")
        assert "Not supported by this slide" in band.locator("h2").text_content()
        assert "It depends on nothing." in band.inner_text()
        text = page.inner_text(".text")
        assert "[Not assessable with confidence.]" in text
        assert "No necrosis." not in text
        assert "91\u202f% sure" in text
        assert page.locator(".text mark.number").all_inner_texts() == ["4 mm"]
        hidden = page.locator("details.withheld")
        assert not hidden.locator("p").is_visible()
        hidden.locator("summary").click()
        assert hidden.locator("p").inner_text() == "Sentence 2: No necrosis."
        page.locator("details.others summary").click()
        assert page.locator("details.others li").all_inner_texts() == ["The margin is 9 mm plain."]
        # A sentence that is not shown still leads to what it rests on.
        page.locator("#sentence-2").click()
        assert page.inner_text(".showing") == "Map of sentence 2"


def test_a_large_tile_repeats_sentences_whole_and_as_they_are_shown(browser: Any, tmp_path: Any) -> None:
    with opened(browser, tmp_path, render_case(*trusted(gate("distribution", True)))) as page:
        page.click(".evidence.active button.tile >> nth=2")  # the first tile of the case: of all three sentences
        said = page.locator("dialog li bdi").all_inner_texts()
        assert said == ["Adenocarcinoma is present.", "[Not assessable with confidence.]", "The margin is 4 mm."]


def test_print_shows_no_sentence_that_is_not_assessable(browser: Any, tmp_path: Any) -> None:
    with opened(browser, tmp_path, render_case(*trusted(gate("distribution", True)))) as page:
        page.emulate_media(media="print")
        quotes = page.locator(".quote").all_inner_texts()
        assert quotes == ["Adenocarcinoma is present.", "[Not assessable with confidence.]", "The margin is 4 mm."]
        assert "No necrosis." not in page.inner_text("body")


@pytest.mark.parametrize(
    ("gates", "headline"),
    [
        ((gate("distribution", True),), "Passed the model's trust gates"),
        ((gate("image dependence", None),), "Whether this slide supports this report is not known"),
        ((gate("image dependence", None), gate("distribution", True)), "Passed those trust gates that are calibrated"),
    ],
)
def test_the_band_says_what_is_known(gates: tuple[Gate, ...], headline: str) -> None:
    report, panels = trusted(*gates)
    assert headline.replace("'", "&#39;") in render_case(report, panels)
    assert headline.replace("'", "&#x27;") in report_card(report)


def test_a_report_without_gates_has_no_band_and_hostile_words_stay_words() -> None:
    assert 'aria-label="Trust"' not in render_case(*case())
    page = render_case(*trusted(gate(HOSTILE, False, HOSTILE), word=HOSTILE))
    assert HOSTILE not in page


def test_a_notebook_card_shows_no_sentence_that_is_not_assessable() -> None:
    card = report_card(trusted(gate("distribution", False))[0])
    assert "No necrosis." not in card
    assert "[Not assessable with confidence.]" in card
    assert "Not supported by this slide" in card


def test_fields_stand_on_the_page_with_how_sure_they_are_and_doubtful_ones_only_on_demand(
    browser: Any, tmp_path: Any
) -> None:
    report, panels = case(texts=("Adenocarcinoma is present.",))
    fields = (
        FieldValue(name="grade", value=2, probability=0.996, confidence=0.8125),
        FieldValue(name="invasion", value=True, probability=0.7),
        FieldValue(name=HOSTILE, value=HOSTILE, probability=0.6, confidence=0.05, assessable=False),
        FieldValue(name="margin", value=None, probability=0.5, assessable=False),
    )
    page_text = render_case(report.model_copy(update={"fields": fields}), panels)
    assert HOSTILE not in page_text
    with opened(browser, tmp_path, page_text) as page:
        rows = [row.locator("td").all_inner_texts() for row in page.locator(".fields tbody tr").all()]
        withheld = "[Not assessable with confidence.]"
        assert rows == [
            ["grade", "2", "81\u202f%", ">\u202f99\u202f%"],
            ["invasion", "yes", "", "70\u202f%"],
            [HOSTILE, withheld, "5.0\u202f%", "60\u202f%"],
            ["margin", withheld, "", "50\u202f%"],
        ]
        hidden = page.locator(".fields details")
        assert not hidden.locator("p").is_visible()
        hidden.locator("summary").click()
        assert hidden.locator("p").all_inner_texts() == [f"{HOSTILE}: {HOSTILE}"]
    plain = render_case(report.model_copy(update={"fields": fields[1:2]}), panels)
    assert "Confidence" not in plain.partition("<h2>Fields</h2>")[2].partition("</section>")[0]
    assert "70\u202f%" in plain
