"""Splits keep patients whole, divide every stratum alike, and are the same for the same seed everywhere."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mivpg.cohorts.case import SPLITS, Case, write_manifest
from wsi_mivpg.cohorts.checks import leaks_between_splits
from wsi_mivpg.cohorts.split import counts, split_cases, write_split_record
from wsi_mivpg.errors import CohortError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def _cases(count: int, subtypes: str = "ab") -> list[Case]:
    return [
        Case(f"c{number:03}", (), (), (), None, attributes={"subtype": subtypes[number % len(subtypes)]})
        for number in range(count)
    ]


def _splits(cases: list[Case]) -> dict[str, str | None]:
    return {case.case_id: case.split for case in cases}


@settings(max_examples=60)
@given(
    patients=st.lists(st.integers(0, 30), min_size=12, max_size=90),
    seed=st.integers(0, 5),
    stratify=st.sampled_from([None, "subtype"]),
)
def test_no_patient_is_divided_and_the_shares_hold(patients: list[int], seed: int, stratify: str | None) -> None:
    cases = [
        replace(case, patient_id=f"p{patient}") for case, patient in zip(_cases(len(patients)), patients, strict=True)
    ]
    if len(set(patients)) < 3:
        with pytest.raises(CohortError, match="cannot be divided into 3 splits"):
            split_cases(cases, SHARES, seed=seed, stratify=stratify)
        return
    divided = split_cases(cases, SHARES, seed=seed, stratify=stratify)
    assert [replace(case, split=None) for case in divided] == cases
    assert leaks_between_splits(divided) == []
    found = Counter(case.split for case in divided)
    assert set(found) == set(SPLITS)
    most = max(Counter(patients).values())  # a patient is not divided, so a share can miss by one patient's cases
    for split, share in SHARES.items():
        assert abs(found[split] - share * len(cases)) <= 2 * most + 1


def test_every_stratum_is_divided_as_the_whole() -> None:
    cases = _cases(991, "aaaaabbbcccd")  # four subtypes of unequal size
    divided = split_cases(cases, SHARES, seed=1, stratify="subtype")
    whole, of = (
        Counter(case.attributes["subtype"] for case in cases),
        Counter((case.attributes["subtype"], case.split) for case in divided),
    )
    for subtype, size in whole.items():
        for split, share in SHARES.items():
            assert abs(of[subtype, split] - share * size) <= 2
    assert counts(divided) == {
        "train": {"cases": 694, "patients": 694, "slides": 0},
        "val": {"cases": 99, "patients": 99, "slides": 0},
        "test": {"cases": 198, "patients": 198, "slides": 0},
    }


def test_the_seed_decides_and_the_order_of_the_cases_does_not() -> None:
    cases = _cases(60)
    first = _splits(split_cases(cases, SHARES, seed=3, stratify="subtype"))
    assert _splits(split_cases(cases[::-1], SHARES, seed=3, stratify="subtype")) == first
    assert _splits(split_cases(cases, SHARES, seed=4, stratify="subtype")) != first


def test_a_split_does_not_depend_on_how_python_hashes(tmp_path: Path) -> None:
    write_manifest(tmp_path / "c.jsonl", _cases(40, "abcde"))
    code = (
        "import sys; from pathlib import Path; from wsi_mivpg.cohorts.case import read_manifest\n"
        "from wsi_mivpg.cohorts.split import split_cases\n"
        "cases = split_cases(read_manifest(Path(sys.argv[1])), {'train': .5, 'test': .5}, seed=1, stratify='subtype')\n"
        "print(*(case.split for case in cases))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "c.jsonl")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_cases_that_share_a_slide_or_a_tcga_patient_stay_together() -> None:
    shared, cases = Path("both.svs"), _cases(30)
    cases[0] = replace(cases[0], slide_paths=(shared,))
    cases[9] = replace(cases[9], slide_paths=(shared, Path("TCGA-AA-0001-01Z-00-DX1.svs")))
    cases[20] = replace(cases[20], bag_paths=(Path("TCGA-AA-0001-01Z-00-DX2.h5"),))
    for seed in range(8):
        splits = _splits(split_cases(cases, {"train": 0.5, "test": 0.5}, seed=seed))
        assert splits["c000"] == splits["c009"] == splits["c020"]


def test_a_small_cohort_gives_every_wanted_split_a_patient() -> None:
    assert sorted(str(case.split) for case in split_cases(_cases(3), SHARES)) == ["test", "train", "val"]
    assert {case.split for case in split_cases(_cases(10), {"train": 0.9, "val": 0.0, "test": 0.1})} == {
        "train",
        "test",
    }


@pytest.mark.parametrize(
    ("shares", "stratify", "said"),
    [
        ({"train": 0.7, "test": 0.2}, None, r"\(train 0.7, test 0.2\) add up to 0.9"),
        ({"train": 1.5, "test": -0.5}, None, "from 0 to 1"),
        ({"train": 0.5, "dev": 0.5}, None, "split 'dev' is none of train, val, test"),
        (SHARES, "grade", "no case has 'grade'; the manifest has subtype"),
    ],
)
def test_what_cannot_be_is_refused(shares: dict[str, float], stratify: str | None, said: str) -> None:
    with pytest.raises(CohortError, match=said):
        split_cases(_cases(20), shares, stratify=stratify)


def test_how_it_was_divided_is_saved_beside_the_manifest(tmp_path: Path) -> None:
    divided = split_cases(_cases(20), SHARES, seed=5, stratify="subtype")
    write_manifest(tmp_path / "c.csv", divided)
    path = write_split_record(tmp_path / "c.csv", divided, SHARES, seed=5, stratify="subtype")
    assert path == tmp_path / "c.csv.split.json"
    record = json.loads(path.read_text())
    assert (record["seed"], record["fractions"], record["stratify"]) == (5, SHARES, "subtype")
    assert sum(record["counts"][split]["cases"] for split in SPLITS) == 20
    assert sum(record["strata"]["a"].values()) == 10
