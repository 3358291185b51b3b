import numpy as np
import pytest

from wsi_mivpg.cohorts.wording import FINDING_PHRASES, rounded_extent, write_report
from wsi_mivpg.evaluation import ReportFields, extract_fields


@pytest.mark.parametrize("finding", list(FINDING_PHRASES))
def test_every_wording_of_the_cohort_is_read_back(finding: str):
    for seed in range(200):
        rng = np.random.default_rng(seed)
        benign = finding == "benign"
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
        expected = ReportFields(
            organ="lung",
            procedure="core biopsy",
            finding=finding,
            extent_percent=None if benign else rounded_extent(truth["extent_percent"]),
            foci=None if benign else truth["n_foci"],
        )
        assert extract_fields(text) == expected, text


def test_text_without_facts_gives_none():
    assert extract_fields("") == ReportFields(None, None, None, None, None)
    assert extract_fields("the the the") == ReportFields(None, None, None, None, None)


def test_a_number_of_absurd_length_is_no_fact():
    fields = extract_fields(f"Lung, biopsy: adenocarcinoma in {'9' * 5000} foci, {'9' * 5000}%.")
    assert (fields.finding, fields.foci, fields.extent_percent) == ("adenocarcinoma", None, None)


def test_a_denied_finding_is_not_found():
    assert extract_fields("Lung, biopsy: no squamous cell carcinoma.").finding is None
    assert extract_fields("Lung, biopsy: necrosis, no evidence of adenocarcinoma.").finding == "necrosis"


def test_the_first_named_finding_is_the_main_one_in_either_spelling():
    assert extract_fields("Lung, biopsy: adenocarcinoma, next to necrosis.").finding == "adenocarcinoma"
    text = "Lung, biopsy: Keratinizing squamous cell carcinoma in two foci, 12.5 percent."
    fields = extract_fields(text)
    assert (fields.finding, fields.foci, fields.extent_percent) == ("squamous_cell_carcinoma", 2, 12.5)
    assert extract_fields("Lung, biopsy: no tumor identified.").finding == "benign"
