"""The clinical extractor reads what a report states, and nothing that it does not."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_mivpg.cohorts.wording import FINDING_PHRASES, rounded_extent, write_report
from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.clinical import clinical_metrics, load_vocabulary, mentioned_terms, read_report
from wsi_mivpg.evaluation.fields import extract_fields
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.text_files import MAX_CHARACTERS


def stated(text: str) -> dict[str, set[str]]:
    return {field: set(values) for field, values in read_report(text).statements.items()}


def scored(written: str, *references: str) -> dict[str, float]:
    return {m.name: m.overall() for m in clinical_metrics(Pairs(("a",), (written,), (references,)))}


RESECTION = (
    "Colon, left hemicolectomy: adenocarcinoma, moderately differentiated, 4.5 x 3.2 x 1 cm.\n"
    "Margins: uninvolved by carcinoma. Perineural invasion not identified. Lymphovascular invasion present.\n"
    "Lymph nodes: 2/15 positive."
)


@pytest.mark.parametrize("words", ["not assessable", "not assessed", "not evaluable", "not applicable"])
def test_what_was_not_assessed_is_denied_nothing(words: str):
    assert stated(f"Margins {words}: adenocarcinoma.")["histological_type"] == {"adenocarcinoma"}
    assert "negation" not in stated(f"Diagnosis {words} (malignant).")


def test_every_field_of_a_resection_report_is_read():
    assert stated(RESECTION) == {
        "organ": {"colon"},
        "procedure": {"colectomy"},
        "laterality": {"left"},
        "diagnosis_class": {"malignant"},
        "histological_type": {"adenocarcinoma"},
        "grade": {"moderately_differentiated"},
        "margin": {"negative"},
        "invasion": {"perineural:absent", "lymphovascular:present"},
        "nodes": {"positive"},
    }
    assert read_report(RESECTION).numbers == {"size_mm": 45.0, "nodes_positive": 2.0, "nodes_examined": 15.0}


@pytest.mark.parametrize(
    ("text", "organ", "procedure"),
    [
        ("Breast, core-needle biopsy;\n  Fibroadenoma", "breast", "core_biopsy"),
        ("Uterine cervix, punch biopsy;\n  Chronic nonspecific cervicitis", "cervix", "punch_biopsy"),
        ("Urinary bladder, transurethral resection; urothelial carcinoma", "bladder", "transurethral_resection"),
        ("Stomach, endoscopic biopsy: gastritis. Metastatic to liver.", "stomach", "endoscopic_biopsy"),
        ("Oesophagus, biopsy: oesophagitis", "esophagus", "biopsy"),
    ],
)
def test_organ_and_procedure_come_from_the_first_clause_that_names_them(text: str, organ: str, procedure: str):
    assert stated(text)["organ"] == {organ}
    assert stated(text)["procedure"] == {procedure}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Invasive ductal carcinoma.", "malignant"),
        ("Ductal carcinoma in situ.", "in_situ"),
        ("Tubular adenoma with low grade dysplasia.", "dysplasia"),
        ("Fibroadenoma.", "benign"),
        ("Chronic active gastritis.", "inflammation"),
        ("No evidence of malignancy.", "benign"),
        ("No tumour present.", "benign"),
        ("Suspicious for adenocarcinoma.", "suspicious"),
        ("Insufficient for diagnosis.", "insufficient"),
    ],
)
def test_the_class_of_a_diagnosis_is_read(text: str, kind: str):
    assert kind in stated(text)["diagnosis_class"]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Keratinising squamous cell carcinoma", {"keratinizing_squamous_cell_carcinoma"}),
        ("Carcinoma, in part an adenocarcinoma", {"adenocarcinoma"}),  # the general one is implied
        ("Invasive carcinoma of no special type", {"invasive_breast_carcinoma_nst"}),
        ("Tubular adenomas and hyperplastic polyps", {"tubular_adenoma", "hyperplastic_polyp"}),
        ("Malignant tumor", None),
    ],
)
def test_the_most_specific_types_are_read(text: str, kinds: set[str] | None):
    assert stated(text).get("histological_type") == kinds


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("grade II", "grade_2"),
        ("Nottingham grade 3", "grade_3"),
        ("G1", "grade_1"),
        ("Gleason score 7 (3+4)", "gleason_3+4"),
        ("Gleason's score 4 + 5 = 9", "gleason_4+5"),
        ("grade group 4", "grade_group_4"),
        ("poorly-differentiated", "poorly_differentiated"),
        ("high grade", "high_grade"),
    ],
)
def test_grades_in_their_notations(text: str, grade: str):
    assert grade in stated(f"Adenocarcinoma, {text}.")["grade"]


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("No atypia, necrosis or granuloma.", {"atypia", "necrosis", "granulomatous_inflammation"}),
        ("Negative for malignancy, chronic inflammation is present.", {"malignancy"}),
        ("Necrosis is not identified.", {"necrosis"}),
        ("No carcinoma but extensive necrosis.", {"carcinoma"}),
        ("Free of tumour. Necrosis.", {"tumor"}),
        ("Not only necrosis.", None),
        ("Malignancy cannot be excluded.", None),
    ],
)
def test_a_denial_reaches_as_far_as_it_should(text: str, denied: set[str] | None):
    assert stated(text).get("negation") == denied


@pytest.mark.parametrize(
    ("text", "doubted"),
    [
        ("Suspicious for carcinoma.", {"carcinoma"}),
        ("Dysplasia cannot be ruled out.", {"dysplasia"}),
        ("Adenocarcinoma. Favor reactive atypia.", {"atypia"}),
        ("Adenocarcinoma.", None),
    ],
)
def test_what_is_doubted_is_read(text: str, doubted: set[str] | None):
    assert stated(text).get("uncertainty") == doubted


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("involving approximately 35% of the tissue, next to necrosis", {"percentage.extent": 35}),
        (
            "Ki-67 labelling index is 20%, ER positive (90 %), PR: 5 percent",
            {"percentage.ki67": 20, "percentage.er": 90, "percentage.pr": 5},
        ),
        ("tumor volume 10-20%", {"percentage.extent": 15}),
        ("PD-L1 <1%", {"percentage.pdl1": 1}),
        ("60% necrosis", {"percentage.necrosis": 60}),
        ("2,5 cm mass", {"size_mm": 25}),
        ("1.5 x 0.8 cm and 30 mm", {"size_mm": 30}),
        ("closest margin 2 mm", {"margin_distance_mm": 2}),
        ("0 of 12 lymph nodes", {"nodes_positive": 0, "nodes_examined": 12}),
        ("in 3 foci", {"foci": 3}),
        ("as a single focus", {"foci": 1}),
        ("no number here", {}),
    ],
)
def test_numbers_are_read_with_what_they_are_of(text: str, numbers: dict[str, float]):
    assert read_report(text).numbers == numbers


@pytest.mark.parametrize("finding", list(FINDING_PHRASES))
def test_every_wording_of_the_virtual_cohort_is_read_back(finding: str):
    expected = {"adenocarcinoma": "adenocarcinoma", "squamous_cell_carcinoma": "squamous_cell_carcinoma"}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth = {
            "organ": "Lung",
            "procedure": "core biopsy",
            "finding": finding,
            "extent_percent": float(rng.uniform(1, 95)),
            "n_foci": int(rng.integers(1, 7)),
            "touches": ["lymphoid", "necrosis", "stroma", "parenchyma"][: int(rng.integers(0, 5))],
            "shares": {"parenchyma": 0.6, "stroma": 0.4},
        }
        text = write_report(truth, rng)
        found = read_report(text)
        assert (found.statements["organ"], found.statements["procedure"]) == ({"lung"}, {"core_biopsy"}), text
        is_malignant = "malignant" in found.statements.get("diagnosis_class", ())
        assert is_malignant == (finding in expected), text
        if finding in expected:
            words = load_vocabulary()
            types = found.statements["histological_type"]
            assert any(expected[finding] in (name, *words.ancestors(name)) for name in types), text
        if finding != "benign":
            assert found.numbers["percentage.extent"] == rounded_extent(truth["extent_percent"]), text
            assert found.numbers["foci"] == truth["n_foci"], text


def test_types_of_real_gastric_captions_agree_with_their_labels(shared_data: Path):
    """The 991 captions of PatchGastricADC22 carry their subtype; the extractor sees the text only."""
    path = shared_data / "text" / "patchgastric_captions.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    grades = {
        "Well": "well_differentiated",
        "Moderately": "moderately_differentiated",
        "Poorly": "poorly_differentiated",
    }
    right = total = malignant = 0
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        found = read_report(row["text"])
        malignant += "malignant" in found.statements.get("diagnosis_class", ())
        if (first := row["subtype"].split()[0]) in grades and " to " not in row["subtype"]:
            total += 1
            right += grades[first] in found.statements.get("grade", ())
    assert malignant / len(rows) > 0.97
    assert total > 500
    assert right / total > 0.95


def test_text_without_facts_states_nothing():
    for text in ("", "the the the", "12345 …"):
        assert read_report(text).statements == {}


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str):
    found = read_report(text)
    assert all(found.statements.values())
    assert all(np.isfinite(value) for value in found.numbers.values())


@pytest.mark.parametrize(
    "part", ["1", "1 ", " ", "1.", "no ", "x ", "1 x ", "%", "no, ", "grade ", "3 + ", "a single focus ", "\n", "(1-"]
)
def test_the_longest_report_is_read_in_seconds_whatever_it_repeats(part: str):
    started = time.process_time()
    read_report("5" + (part * MAX_CHARACTERS)[:MAX_CHARACTERS])
    extract_fields("5" + (part * MAX_CHARACTERS)[:MAX_CHARACTERS])
    assert time.process_time() - started < 10


def test_the_same_text_gives_the_same_fields_and_terms():
    assert read_report(RESECTION) == read_report(RESECTION)
    assert mentioned_terms("No carcinoma of the colon") == {"carcinoma", "colon"}


def test_precision_and_recall_count_statements():
    found = scored(
        "Lung, core biopsy: squamous cell carcinoma, 30%.", "Lung, lobectomy: adenocarcinoma, 35%, in 2 foci."
    )
    assert (found["field.organ.precision"], found["field.organ.recall"]) == (1.0, 1.0)
    assert (found["field.procedure.precision"], found["field.histological_type.recall"]) == (0.0, 0.0)
    assert found["field.diagnosis_class.recall"] == 1.0
    assert (found["field.percentage.recall"], found["number_error.percentage"]) == (1.0, 5.0)
    assert np.isnan(found["field.foci.precision"])
    assert found["field.foci.recall"] == 0.0
    assert "field.margin.precision" not in found  # nobody speaks of margins


def test_the_closest_of_several_references_counts():
    found = scored("Lung, biopsy: adenocarcinoma.", "Liver, biopsy: hepatitis.", "Lung, biopsy: adenocarcinoma.")
    assert found["field.organ.precision"] == found["field.histological_type.recall"] == 1.0


@pytest.mark.parametrize(
    ("written", "reference", "flips"),
    [
        ("No carcinoma.", "Adenocarcinoma.", 1.0),  # a denial of carcinoma denies its kinds
        ("Adenocarcinoma.", "No evidence of malignancy.", 1.0),
        ("Squamous cell carcinoma.", "Adenocarcinoma, no squamous component.", None),
        ("No adenocarcinoma.", "Carcinoma.", None),  # another kind of carcinoma: no contradiction
        ("Necrosis absent.", "Extensive necrosis.", 1.0),
        ("Necrosis.", "Necrosis.", 0.0),
        ("No malignancy.", "Negative for malignancy.", 0.0),
        ("Necrosis, no carcinoma.", "Necrosis and carcinoma.", 0.5),
    ],
)
def test_flipped_negations_are_counted(written: str, reference: str, flips: float | None):
    found = scored(written, reference)["negation_flips"]
    assert found == flips if flips is not None else np.isnan(found)


def test_over_specific_statements_go_beyond_the_reference():
    assert scored("Carcinoma.", "Carcinoma.")["over_specific"] == 0.0
    assert scored("Adenocarcinoma.", "Carcinoma.")["over_specific"] == pytest.approx(1 / 2)  # class, type
    assert scored("Carcinoma, grade 2, 40%.", "Carcinoma.")["over_specific"] == pytest.approx(2 / 4)
    assert scored("Adenocarcinoma.", "Squamous cell carcinoma.")["over_specific"] == 0.0  # wrong, not over-specific


def test_a_users_own_vocabulary_adds_words_and_values(tmp_path: Path):
    own = tmp_path / "own.toml"
    own.write_text(
        '[organ]\nlung = ["pulmo"]\nears = ["ear"]\n[concept.otitis]\nphrases = ["otitis"]\nparent = "inflammation"\n'
    )
    words = load_vocabulary(own)
    found = read_report("Ear, biopsy: otitis.", words).statements
    assert (found["organ"], found["histological_type"]) == ({"ears"}, {"otitis"})
    assert read_report("Pulmo, biopsy", words).statements["organ"] == {"lung"}
    assert "organ" not in read_report("Pulmo, biopsy").statements


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[organ", "cannot read the vocabulary"),
        ('[organ]\nx = "y"', "phrases of x"),
        ('[concept.x]\nphrases = ["y"]\nparent = "nothing"', "parent of concept x"),
        ("[concept.x]\nparent = 1", "malformed"),
    ],
)
def test_a_malformed_vocabulary_is_named(tmp_path: Path, content: str, message: str):
    own = tmp_path / "own.toml"
    own.write_text(content)
    with pytest.raises(TextsError, match=message) as caught:
        load_vocabulary(own)
    assert str(own) in str(caught.value)


@pytest.mark.parametrize(
    "unit", ["no tumor ", "tumor absent ", "no tumor, or ", "10% ", "10% tumor cells ", "2 cm ", "grade 2 ", "9"]
)
def test_the_longest_text_of_one_clause_is_read_in_seconds(unit: str):
    text = (unit * MAX_CHARACTERS)[:MAX_CHARACTERS]
    began = time.process_time()
    read_report(text)
    extract_fields(text)
    assert time.process_time() - began < 20  # quadratic reading took minutes


def test_a_denial_reaches_every_item_of_a_list_and_not_what_lies_far():
    assert read_report("No necrosis, dysplasia or carcinoma.").denied == {"necrosis", "dysplasia", "carcinoma"}
    assert read_report("No necrosis, dysplasia is seen.").denied == {"necrosis"}
    assert "carcinoma" in read_report(f"No {'very ' * 40}clear carcinoma").affirmed
    assert read_report("Necrosis and carcinoma are absent, dysplasia").affirmed == {"dysplasia"}
