"""A control shows every case another patient's slides, and no slides twice."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.controls import with_other_slides
from wsi_mivpg.errors import CohortError


def _cases(patients: list[int]) -> list[Case]:
    return [
        Case(f"case {place}", (), (Path(f"{place}.h5"),), ("text",), "test", patient_id=f"patient {patient}")
        for place, patient in enumerate(patients)
    ]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 3))
def test_every_case_gets_another_patients_slides_and_none_is_shown_twice(patients: list[int], seed: int) -> None:
    cases = _cases(patients)
    if 2 * max(map(patients.count, patients)) > len(patients):
        with pytest.raises(CohortError, match="give more patients"):
            with_other_slides(cases, seed=seed)
        return
    shown = with_other_slides(cases, seed=seed)
    owner = {case.bag_paths: case.patient for case in cases}
    assert [case.case_id for case in shown] == [case.case_id for case in cases]
    assert all(owner[case.bag_paths] != case.patient for case in shown)
    assert sorted(case.bag_paths for case in shown) == sorted(owner)
    assert [case.reports for case in shown] == [case.reports for case in cases]


def test_another_seed_is_another_exchange() -> None:
    cases = _cases(list(range(12)))
    assert with_other_slides(cases, seed=1) == with_other_slides(cases, seed=1) != with_other_slides(cases, seed=2)
