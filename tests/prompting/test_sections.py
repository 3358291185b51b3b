"""Sections: what is asked for, and what a text has of it."""

import pytest

from wsi_mivpg.errors import PromptError
from wsi_mivpg.prompting import parse_sections, sections_prompt

TEXT = """Lung tissue.
A. DIAGNOSIS: Adenocarcinoma.
Tumour grade: high. Comment: small sample
MARGINS: free
Final diagnosis - Also necrosis."""


def test_a_prompt_lists_the_headers():
    assert sections_prompt("Write.", ["Specimen", "Final diagnosis:"]).endswith(":\nSpecimen:\nFinal diagnosis:")


def test_sections_are_found_under_any_usual_header_and_the_rest_is_named():
    sections = parse_sections(TEXT, ["Final diagnosis:", "Tumour grade", "Stage"])
    assert sections.found == {"Final diagnosis": "Adenocarcinoma.\nAlso necrosis.", "Tumour grade": "high."}
    assert sections.missing == ("Stage",)
    assert sections.unknown == ("Comment", "MARGINS")
    assert sections.before == "Lung tissue."


def test_a_text_without_headers_has_no_section():
    sections = parse_sections("Adenocarcinoma.", ["Final diagnosis"])
    assert (sections.found, sections.missing, sections.before) == ({}, ("Final diagnosis",), "Adenocarcinoma.")


def test_a_header_without_text_is_missing():
    assert parse_sections("Specimen:\nFinal diagnosis: Benign.", ["Specimen", "Final diagnosis"]).missing == (
        "Specimen",
    )


@pytest.mark.parametrize("names", [[], [" "], ["Diagnosis", "Final diagnosis:"]])
def test_sections_must_be_named_and_differ(names: list[str]):
    with pytest.raises(PromptError):
        sections_prompt("Write.", names)
