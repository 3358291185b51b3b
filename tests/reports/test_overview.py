"""What shows all reports of a folder: the index in a browser, and the table."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import browser as browser
from wsi_mivpg.reports import (
    FieldValue,
    Gate,
    Provenance,
    Report,
    Sentence,
    SlideSummary,
    held_records,
    write_overview,
    write_thumbnail,
)


def report(case_id: str, text: str, n_tiles: int, **changes: Any) -> Report:
    slides = (SlideSummary(slide_id=case_id, n_tiles=n_tiles),)
    return Report(case_id=case_id, text=text, slides=slides, provenance=Provenance(created="now"), **changes)


SHUT = Gate(name="distribution", value=0.01, threshold=0.05, passed=False, explanation="Unlike all training slides.")
OPEN = Gate(name="image dependence", value=2.5, threshold=0.4, passed=True, explanation="It rests on the slide.")
REPORTS = [
    report("case-10", "Adenocarcinoma, grade 2.", 500, warnings=("Only few tiles.",), gates=(OPEN,)),
    report("case-2", "No tumour.", 3000, gates=(OPEN, SHUT)),
    report(
        "case-1",
        "Squamous. Margins free.",
        20,
        warnings=("One.", "Two."),
        sentences=(
            Sentence(text="Squamous.", start=0, end=9, logprob=-1, method="attention"),
            Sentence(text="Margins free.", start=10, end=23, logprob=-9, method="attention", assessable=False),
        ),
        fields=(
            FieldValue(name="grade", value=3, probability=0.9, confidence=0.7),
            FieldValue(name="margin", value="free", probability=0.6, confidence=0.1, assessable=False),
        ),
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_thumbnail(tmp_path, "case-2", np.full((600, 900, 3), 120, np.uint8))
    with held_records(tmp_path) as records:
        for one in REPORTS:
            records.add(one)
        write_overview(tmp_path, records, {"bad.svs": "not a slide"})
    return tmp_path


def test_the_index_is_searched_and_sorted_and_shows_pictures_warnings_and_gates(browser: Any, folder: Path):
    page = browser.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((folder / "index.html").as_uri())

    def shown() -> list[str]:
        # Not `inner_text`, which is empty while a case lies out of view and is not rendered.
        return page.locator(".cases > li:not([hidden]) a").all_text_contents()

    assert shown() == ["case-10", "case-2", "case-1"]
    page.wait_for_function("document.querySelector('.picture img').naturalWidth > 0")
    assert page.evaluate("document.querySelector('.picture img').naturalWidth") == 264
    expected = {
        "name": ["case-1", "case-2", "case-10"],
        "doubts": ["case-2", "case-10", "case-1"],
        "warnings": ["case-1", "case-10", "case-2"],
        "tiles": ["case-2", "case-10", "case-1"],
        "order": ["case-10", "case-2", "case-1"],
    }
    for order, cases in expected.items():
        page.select_option("select", order)
        assert shown() == cases
    page.fill("input[type=search]", "GRADE adeno")
    assert shown() == ["case-10"]
    assert page.inner_text("[role=status]") == "1 of 3 cases"
    page.fill("input[type=search]", "")
    page.check("input[type=checkbox]")
    assert shown() == ["case-10", "case-2", "case-1"]  # a shut gate is a warning, too
    assert "Not supported by its slides: distribution" in page.inner_text(".cases")
    assert "[Not assessable with confidence.]" in page.inner_text(".cases")
    assert "Margins free" not in page.content()
    assert "bad.svs" in page.inner_text("main")
    page.click("text=2 warnings")
    assert page.locator("text=Two.").is_visible()
    assert errors == []
    page.close()


def test_the_table_has_a_line_for_each_case_with_gates_and_fields(folder: Path):
    with (folder / "reports.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["case_id"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["case-10", "case-2", "case-1"]
    # Nothing is said of a report that no gate has looked at.
    assert [row["supported"] for row in rows.values()] == ["True", "False", ""]
    assert rows["case-2"]["gate: distribution"] == "0.01"
    assert rows["case-10"]["gate: image dependence"] == "2.5"
    assert rows["case-10"]["gate: distribution"] == ""
    named = ("field: grade", "probability: grade", "confidence: grade", "field: margin", "confidence: margin")
    assert [rows["case-1"][name] for name in named] == ["3", "0.9", "0.7", "", "0.1"]
    assert rows["case-1"]["text"] == "Squamous. [Not assessable with confidence.]"
    assert rows["case-1"]["warnings"] == "One. | Two."


def test_a_folder_whose_index_cannot_be_written_is_a_clear_error(folder: Path):
    from wsi_mivpg.errors import OutputError

    (folder / "index.html").unlink()
    (folder / "index.html").mkdir()
    with held_records(folder) as records, pytest.raises(OutputError, match=r"index\.html"):
        write_overview(folder, records, {})
