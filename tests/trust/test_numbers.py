"""The numbers guard finds what a language model easily invents, and nothing that only looks like a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_mivpg.trust import numbers_in, unverified


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in numbers_in(text)]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("involving approximately 35% of the tissue, in 2 foci", ["35%", "2"]),
        ("Ki-67 is 20-30 %.", ["20-30 %"]),
        ("A tumour of 3.2 x 2.1 x 1.0 cm, 4 mm from the margin.", ["3.2 x 2.1 x 1.0 cm", "4 mm"]),
        ("Metastasis in 2 of 14 lymph nodes (3/14).", ["2 of 14", "3/14"]),
        ("as a single focus", ["a single"]),
        ("as two separate foci", ["two"]),
        ("Gleason 3+4=7, grade group 2.", ["Gleason 3+4=7", "grade group 2"]),
        ("Poorly differentiated, high-grade.", ["Poorly differentiated", "high-grade"]),
        ("Grade II, stage IIIB, pT2a pN1 M0.", ["Grade II", "stage IIIB", "pT2a", "pN1", "M0"]),
        ("Left breast; right-sided mass; bilateral.", ["Left", "right-sided", "bilateral"]),
    ],
)
def test_percentages_sizes_counts_grades_stages_and_sides_are_found(text: str, numbers: list[str]) -> None:
    assert found(text) == numbers


@pytest.mark.parametrize(
    "text",
    ["Positive for CD20, p53, HER2 and Ki-67.", "1. Adenocarcinoma.\n2. No necrosis.", "No tumour. Normal lung.", ""],
)
def test_names_with_digits_marks_of_a_list_and_plain_words_are_no_numbers(text: str) -> None:
    assert found(text) == []


@given(st.text(alphabet="a1 2.,%/xcm-pT4\n+", max_size=40))
def test_places_are_in_order_within_the_text_and_never_overlap(text: str) -> None:
    end = 0
    for start, stop in numbers_in(text):
        assert end <= start < stop <= len(text)
        assert text[start:stop] == text[start:stop].strip()
        end = stop


def test_only_what_a_confident_field_states_is_vouched_for() -> None:
    text = "Left lung: 35% of the tissue, in 2 foci, grade 3."

    def doubtful(*vouched: str | int | float) -> list[str]:
        return [text[start:end] for start, end in unverified(text, vouched)]

    assert doubtful() == ["Left", "35%", "2", "grade 3"]
    assert doubtful(35) == ["Left", "2", "grade 3"]
    assert doubtful("left upper lobe", 2.0) == ["35%", "grade 3"]
    assert doubtful("G3", True) == ["Left", "35%", "2"]
    assert doubtful(350, 5, "right") == ["Left", "35%", "2", "grade 3"]
