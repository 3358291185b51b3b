"""Reports are split at their headers without loss, and what H&E cannot support is dropped, counted and shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.report_text import diff_of, even_spaces, prepare_cases, prepare_report, split_sections
from wsi_mivpg.errors import CohortError

LINES = """Clinical history: 61-year-old woman, palpable mass.
Gross Description:
Received in formalin is a mastectomy of 20 x 15 cm.
The tumour is 3 cm.
MICROSCOPIC DESCRIPTION
Sheets of atypical cells invade the stroma. ER is positive in 90 % of nuclei. Mitoses are frequent.
Immunohistochemistry: CK7 positive, CK20 negative.
DIAGNOSIS - Invasive ductal carcinoma, grade 3."""
INLINE = (
    "Gross description: one fragment, 2x4 mm. Microscopic description: nests of melanocytes in the dermis. "
    "Conclusion: intradermal naevus."
)
ALL = ("gross", "history", "ihc")


def names(text: str) -> list[str]:
    return [section.name for section in split_sections(text)]


def test_headers_on_their_lines_part_a_report() -> None:
    sections = split_sections(LINES)
    assert [section.name for section in sections] == ["history", "gross", "microscopic", "ihc", "diagnosis"]
    assert sections[0].header == "Clinical history:"
    assert sections[4].body == "Invasive ductal carcinoma, grade 3."


def test_headers_within_a_paragraph_part_it() -> None:
    assert names(INLINE) == ["gross", "microscopic", "diagnosis"]


@pytest.mark.parametrize(
    "text",
    [
        "The gross description was not given; microscopic foci are seen.",
        "Tumour of the clinical type, history unknown. Diagnosis is pending",
        "specimen: see above".replace("specimen: ", "the specimen is "),
        "Adenocarcinoma - gross margins free",
    ],
)
def test_words_in_a_sentence_are_no_headers(text: str) -> None:
    assert names(text) == [""]


def test_an_unknown_header_in_capitals_ends_a_section() -> None:
    text = "Gross: 3 cm mass.\nTUMOUR STAGE:\npT2 N0\nDiagnosis: carcinoma."
    assert names(text) == ["gross", "other", "diagnosis"]
    assert prepare_report(text, ["gross"]).text == "TUMOUR STAGE:\npT2 N0\nDiagnosis: carcinoma."
    # In a report that is all in capitals such lines are its text.
    assert names("GROSS:\nTUMOUR SIZE: 3 CM\nDIAGNOSIS:\nCARCINOMA") == ["gross", "diagnosis"]


@given(
    st.lists(
        st.sampled_from(
            ["Gross:", "DIAGNOSIS", "\n", " ", ". ", "A. ", "History - ", "word", "CAPITALS HERE:", "é", "\t"]
        )
    ).map("".join)
)
def test_sections_joined_are_the_text(text: str) -> None:
    assert "".join(section.header + section.body for section in split_sections(text)) == text


def test_what_h_and_e_cannot_support_is_dropped() -> None:
    done = prepare_report(LINES, ALL)
    assert done.text == (
        "MICROSCOPIC DESCRIPTION\nSheets of atypical cells invade the stroma. Mitoses are frequent.\n"
        "DIAGNOSIS - Invasive ductal carcinoma, grade 3."
    )
    assert dict(done.dropped_sections) == {"gross": 1, "history": 1, "ihc": 1}
    assert done.dropped_sentences == 1


def test_only_what_is_named_is_dropped() -> None:
    assert prepare_report(LINES).text == LINES
    done = prepare_report(INLINE, ["gross"])
    assert done.text == INLINE[INLINE.index("Microscopic") :]
    assert done.dropped_sentences == 0


@pytest.mark.parametrize(
    "sentence",
    [
        "Immunohistochemical stains for HMB-45 and Melan-A are positive.",
        "The tumour cells are immunoreactive for CD20.",
        "Her2/neu is 3+.",
        "Ki67: 40 %.",
        "Estrogen receptors are present in 90 % of nuclei.",
        "PR: negative.",
        "TTF1 and napsin A favour a lung primary.",
        "S100 is diffusely positive.",
    ],
)
def test_a_sentence_on_immunohistochemistry_is_found(sentence: str) -> None:
    done = prepare_report(f"Nests of cells. {sentence} Necrosis is seen.", ["ihc"])
    assert done.text == "Nests of cells. Necrosis is seen."
    assert done.dropped_sentences == 1


@pytest.mark.parametrize(
    "sentence",
    [
        "Margins are positive for carcinoma.",
        "The tumour is desmoplastic, with a CDIS component.",
        "Prominent lymphoid infiltrate, immune cells around vessels.",
        "Graded 2 of 3, 14 mitoses in 10 fields.",
    ],
)
def test_other_sentences_stay(sentence: str) -> None:
    assert prepare_report(f"Nests of cells. {sentence}", ["ihc"]).text == f"Nests of cells. {sentence}"


def test_a_sentence_that_a_typist_broke_is_dropped_whole() -> None:
    text = "Nests of cells are seen.\nThe cells stain for CD20 and\nare negative for others.\nNecrosis is seen."
    assert prepare_report(text, ["ihc"]).text == "Nests of cells are seen.\nNecrosis is seen."


def test_a_header_goes_with_all_that_was_below_it() -> None:
    assert prepare_report("Diagnosis: carcinoma.\nComment: Ki-67 is 40 %.", ["ihc"]).text == "Diagnosis: carcinoma."


def test_spaces_are_evened_and_lines_kept() -> None:
    ragged = "  Tumour\u00a0 of\t3 cm \r\n\r\n\r\n\r\nNo\u200b invasion.\x00  "
    assert even_spaces(ragged) == "Tumour of 3 cm\n\nNo invasion."
    assert even_spaces(even_spaces(ragged)) == even_spaces(ragged)


def test_capitals_become_sentences_but_markers_and_grades_stay() -> None:
    text = "DIAGNOSIS: INVASIVE CARCINOMA, GRADE III.\nHER2 NEGATIVE, PT2N0."
    assert prepare_report(text, letter_case="sentence").text == (
        "Diagnosis: Invasive carcinoma, grade III.\nHER2 negative, PT2N0."
    )
    assert prepare_report(LINES, letter_case="sentence").text == LINES
    assert prepare_report("Mixed Case", letter_case="lower").text == "mixed case"


@pytest.mark.parametrize(("drop", "letter_case"), [(["grosss"], "keep"), ([], "upper")])
def test_an_unknown_section_or_case_names_the_known(drop: list[str], letter_case: str) -> None:
    with pytest.raises(CohortError, match=r"is none of (gross, history, ihc|keep, sentence, lower)"):
        prepare_report("x", drop, letter_case)  # type: ignore[arg-type]


def test_a_cohort_is_counted_and_its_changes_are_shown() -> None:
    cases = [
        Case("a", (), (), (LINES, "Same wording."), "train"),
        Case("b", (), (), ("Gross: a mass.",), "val", attributes={"x": "y"}),
        Case("c", (), (), ("Carcinoma.",), "test"),
        Case("d", (Path("d.svs"),), (), (), "test"),
    ]
    done = prepare_cases(cases, ALL)
    assert [case.case_id for case in done.cases] == ["a", "c", "d"]
    assert done.emptied == ("b",)
    assert (done.reports, done.changed, done.dropped_sentences) == (4, 2, 1)
    assert done.dropped_sections == {"gross": 2, "history": 1, "ihc": 1}
    assert done.words == (sum(len(text.split()) for case in cases for text in case.reports), 22)
    diff = diff_of(cases, done.cases)
    assert "--- a before\n+++ a after\n" in diff
    assert "-The tumour is 3 cm.\n" in diff
    assert "--- b before" in diff
    assert "c before" not in diff


def test_real_captions_lose_nothing_but_stray_spaces(shared_data: Path) -> None:
    from wsi_mivpg.cohorts.importers import import_cohort

    cases = import_cohort("patchgastric", shared_data / "text" / "patchgastric_captions.csv").cases
    done = prepare_cases(cases, ALL)
    assert len(done.cases) == 991
    assert done.dropped_sections == {}
    assert done.dropped_sentences == 0
    for before, after in zip(cases, done.cases, strict=True):
        assert before.reports[0].split() == after.reports[0].split()
