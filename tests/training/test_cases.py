"""Cohorts that cannot be trained on are refused before anything is computed, by name."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.provenance import PROVENANCE, bag_on_disk
from tests.training.tiny_cohort import tiny_recipe, write_case, write_cases
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError
from wsi_mivpg.training.cases import usable
from wsi_mivpg.training.train import captioner_config


def _case(folder: Path, slide_id: str, **changes: object) -> Case:
    path = folder / f"{slide_id}.h5"
    bag_on_disk(path, replace(PROVENANCE, slide_id=slide_id, **changes))
    return Case(slide_id, (), (path,), ("a report",), "train")


def test_an_empty_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="the manifest is empty"):
        usable(tiny_recipe(tmp_path / "base"), [])
    without = [replace(case, split=None) for case in write_cases(tmp_path)]
    with pytest.raises(CohortError, match="no case of 4 has split 'train'; split the manifest"):
        usable(tiny_recipe(tmp_path / "base"), without)


def test_a_case_without_a_bag_is_named(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    with pytest.raises(CohortError, match="no bag for 'train2'"):
        usable(tiny_recipe(tmp_path / "base"), [*cases[:2], replace(cases[2], bag_paths=())])


@pytest.mark.parametrize(
    ("name", "value"), [("target_mpp", 0.25), ("encoder", "other"), ("tile_px", 256), ("feature_dim", 6)]
)
def test_bags_made_differently_are_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    cases = [_case(tmp_path, "s1"), _case(tmp_path, "s2", **{name: value})]
    recipe = tiny_recipe(tmp_path / "base")
    assert usable(recipe, cases[:1]).bag.slide_id == "s1"
    with pytest.raises(CohortError, match=f"'s1' and 's2' differ in {name}"):
        usable(recipe, cases)


def test_a_validation_bag_of_another_encoder_is_refused_too(tmp_path: Path) -> None:
    cases = [_case(tmp_path, "s1"), replace(_case(tmp_path, "s2", encoder="other"), split="val")]
    with pytest.raises(CohortError, match="differ in encoder"):
        usable(tiny_recipe(tmp_path / "base"), cases)


@pytest.mark.parametrize("shared", ["patient", "bag", "features"])
def test_a_cohort_that_leaks_is_refused_unless_told_otherwise(tmp_path: Path, shared: str) -> None:
    train, val = write_case(tmp_path, "a", 0), write_case(tmp_path, "b", 1, "val")
    if shared == "patient":
        train, val = replace(train, patient_id="P7"), replace(val, patient_id="P7")
    elif shared == "bag":
        val = replace(val, bag_paths=train.bag_paths)
    else:
        copy = tmp_path / "copy.h5"
        copy.write_bytes(train.bag_paths[0].read_bytes())
        val = replace(val, bag_paths=(copy,))
    recipe = tiny_recipe(tmp_path / "base")
    with pytest.raises(CohortError, match=r"leak into each other: .*data\.on_leak=warn"):
        usable(recipe, [train, val])
    allowed = usable(tiny_recipe(tmp_path / "base", data={"on_leak": "warn"}), [train, val])
    assert allowed.leaks
    assert usable(recipe, [train, write_case(tmp_path, "c", 1, "val")]).leaks == []


def test_a_leak_into_the_test_split_counts_as_well(tmp_path: Path) -> None:
    cases = [write_case(tmp_path, "a", 0), replace(write_case(tmp_path, "b", 1, "test"), patient_id="a")]
    with pytest.raises(CohortError, match="leak"):
        usable(tiny_recipe(tmp_path / "base"), cases)


def test_choosing_by_validation_cases_needs_some(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "base", selection={"metric": "rouge_l"})
    with pytest.raises(CohortError, match="chooses the model by rouge_l on split 'val', but no case has it"):
        usable(recipe, write_cases(tmp_path))


def test_reports_are_prepared_as_the_recipe_asks(tmp_path: Path) -> None:
    text = "GROSS DESCRIPTION: a grey piece.\nDIAGNOSIS: benign."
    cases = [replace(case, reports=(text,)) for case in write_cases(tmp_path)]
    asked = tiny_recipe(tmp_path / "base", data={"reports": {"drop": ["gross"], "letter_case": "lower"}})
    (report,) = usable(asked, cases).train[0].reports
    assert "grey" not in report
    assert "benign" in report
    assert usable(tiny_recipe(tmp_path / "base"), cases).train[0].reports == (text,)


@pytest.mark.parametrize(
    ("changes", "stated"),
    [({}, {"segmenter": "test", "min_tissue": 0.25}), ({"min_tissue": 0.5}, None), ({"tissue_method": "hsv"}, None)],
)
def test_a_model_states_how_tissue_was_found_if_that_was_alike_for_all_bags(
    tmp_path: Path, changes: dict[str, object], stated: dict[str, object] | None
) -> None:
    recipe = tiny_recipe(tmp_path / "base", model={"max_instances": 9, "stain": "PAS"})
    cohort = usable(recipe, [_case(tmp_path, "s1"), _case(tmp_path, "s2", **changes)])
    config = captioner_config(recipe, cohort.bag, cohort.tissue)
    assert (config.tissue, config.max_instances, config.stain) == (stated, 9, "PAS")
