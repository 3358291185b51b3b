"""Text, Markdown and XHTML: what a model wrote is text in all of them, never markup."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.reports.forms.whole import whole_report
from wsi_mivpg.reports import Report
from wsi_mivpg.reports.forms import markdown, plain_text, xhtml
from wsi_mivpg.reports.forms.document import printable

HOSTILE = [
    "# Heading",
    "1. list",
    "- list\n+ list\n* list",
    "a\n---",
    "a\n===",
    "<script>alert(1)</script> &amp; &lt;",
    "`code` *strong* _soft_ ~~gone~~ |table|",
    "[link](http://example.org) ![picture](x)",
    "    indented",
    "> quoted",
    "back\\slash \\# \\",
    "\x1b[31mred\x00\x07",
    "two\n\nparagraphs",
]


def of(text: str) -> Report:
    return whole_report(text=text, sentences=(), consensus=None, gates=())


def rendered(source: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{MarkdownIt('commonmark', {'xhtmlOut': True}).render(source)}</div>")


def words_below_the_status(root: ElementTree.Element) -> list[str]:
    """Return the words between the paragraph of the status and the first section."""
    parts = []
    for child in root:
        if child.tag.endswith("h2"):
            break
        if child.tag.endswith("p"):
            parts.append(" ".join("".join(f" {text}" for text in child.itertext()).split()))
    return " ".join(parts[1:]).split()


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_in_a_text_is_shown_as_it_was_written(text):
    wanted = printable(text).split()
    assert words_below_the_status(rendered(markdown(of(text)))) == wanted
    assert " ".join(wanted) in " ".join(plain_text(of(text)).split())


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_comes_back_from_markdown_and_xhtml_word_by_word(text):
    report = of(text)
    wanted = (printable(report.shown_text).strip() or "The model wrote no text.").split()
    assert words_below_the_status(rendered(markdown(report))) == wanted
    parsed = ElementTree.fromstring(xhtml(report))
    lines = [part for part in parsed.findall("{*}p")[1:] for part in part.itertext()]
    assert " ".join(lines).split() == wanted


def test_plain_text_reads_from_status_to_disclaimer():
    text = plain_text(whole_report())
    order = [
        "NOT SUPPORTED",
        "Preliminary",
        "Lung, biopsy",
        "\nBeware",
        "\nChecks",
        "\nFields",
        "\nSlides",
        "\nDisclaimer",
    ]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert "organ: lung (probability 0.90; otherwise: bronchus 0.10)" in text
    assert "grade: 2 (confidence 0.62, calibrated; the model's own probability 0.75)" in text
    assert "invasion: yes" in text
    assert "nothing vouches for: “35 %”" in text
    assert "S-77 A: H&E, 30 tiles, 20 read, at 0.5 µm/px, 70 % of the attention" in text
    assert "other samples say: No tumour." in text


def test_a_supported_report_does_not_say_that_it_is_not():
    assert "NOT SUPPORTED" not in plain_text(whole_report(gates=()))


def test_a_difference_that_was_forced_is_said_once():
    forced = "mpp 0.5 in the model, 0.25 in bag.h5"
    silent, said = whole_report(forced=(forced,)), whole_report(forced=(forced,), warnings=(f"Forced: {forced}.",))
    assert plain_text(silent).count(forced) == plain_text(said).count(forced) == 1
