"""A sentence is right when nothing that it states is wrong; a report's diagnosis when it says what is the matter."""

import pytest

from wsi_mivpg.evaluation.clinical import diagnosis_is_right, is_right

REFERENCES = (
    "Lung, core biopsy: squamous cell carcinoma, involving approximately 35% of the tissue, in 2 foci, next to normal "
    "lung.",
    "Lung (core biopsy): invasive squamous cell carcinoma, in 35% of the sampled tissue, as 2 separate foci.",
)


@pytest.mark.parametrize(
    ("sentence", "right"),
    [
        ("Lung, core biopsy: squamous cell carcinoma, in 40% of the sampled tissue, in 2 foci.", True),
        ("Lung, core biopsy: keratinising squamous cell carcinoma.", True),
        ("Squamous cell carcinoma, in 60% of the tissue.", False),
        ("Squamous cell carcinoma, as 3 separate foci.", False),
        ("Squamous cell carcinoma, grade 2.", False),
        ("Lung, core biopsy: adenocarcinoma.", False),
        ("No evidence of malignancy.", False),
        ("Colon, biopsy: squamous cell carcinoma.", False),
        ("No necrosis.", True),
        ("A tumour of 12 mm.", False),
    ],
)
def test_every_statement_and_number_counts(sentence: str, right: bool) -> None:
    assert is_right(sentence, REFERENCES) is right


def test_a_sentence_without_statements_is_right_only_word_for_word() -> None:
    assert is_right("Text  of no meaning.", ["Some text of no meaning."])
    assert not is_right("Text of a meaning.", ["Some text of no meaning."])


@pytest.mark.parametrize(
    ("report", "right"),
    [
        ("Lung, core biopsy: squamous cell carcinoma, in 90% of the tissue, in 7 foci.", True),
        ("Lung, core biopsy: adenocarcinoma, in 35% of the tissue, in 2 foci.", False),
        ("Lung, core biopsy: no evidence of malignancy.", False),
        ("Lung, core biopsy.", False),
    ],
)
def test_a_diagnosis_is_right_whatever_the_numbers(report: str, right: bool) -> None:
    assert diagnosis_is_right(report, REFERENCES) is right


def test_where_the_reference_has_no_class_its_findings_must_be_there() -> None:
    assert diagnosis_is_right("Lung: necrotic tissue, in 80% of the tissue.", ["Lung: necrosis, in 65% of the tissue."])
    assert not diagnosis_is_right("Lung: fibrous stroma.", ["Lung: necrosis, in 65% of the tissue."])
    assert diagnosis_is_right("No tumour identified.", ["Negative for malignancy."])
