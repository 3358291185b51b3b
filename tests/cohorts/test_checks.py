"""A check finds every kind of leak, unfit bags and telling reports, and is silent where nothing is wrong."""

import builtins
import dataclasses
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.provenance import PROVENANCE
from wsi_mivpg.bags import write_bag
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.checks import find_leaks, leaks_between_splits
from wsi_mivpg.cohorts.findings import Finding
from wsi_mivpg.cohorts.report_checks import near_pairs, normalised, verbatim_rate

WORDS = "The tumour forms irregular glands that infiltrate the muscular layer and are lined by atypical cells"
REPORTS = {
    "train": WORDS,
    "val": "Dense lymphoid tissue without any epithelial lesion in all of the fragments that were examined here",
    "test": "Normal mucosa",
}


def bag(path: Path, seed: int = 0, count: int = 40, **made: object) -> Path:
    """Write a bag of `count` tiles and 12 random features, the same for the same seed."""
    provenance = dataclasses.replace(PROVENANCE, slide_id=path.stem, **made)
    features = np.random.default_rng(seed).normal(size=(count, provenance.feature_dim)).astype(np.float16)
    coords = np.arange(2 * count).reshape(count, 2)
    write_bag(path, features, coords, np.ones(count, np.float32), provenance)
    return path


@pytest.fixture
def clean(tmp_path: Path) -> list[Case]:
    """Three cases, one a split, with nothing in common."""
    return [
        Case(
            split,
            (tmp_path / f"{split}.svs",),
            (bag(tmp_path / f"{split}.h5", seed),),
            (REPORTS[split],),
            split,
            patient_id=f"p-{split}",
        )
        for seed, split in enumerate(("train", "val", "test"))
    ]


def changed(cases: list[Case], name: str, **what: object) -> list[Case]:
    return [dataclasses.replace(case, **what) if case.case_id == name else case for case in cases]


def of_kind(findings: list[Finding], *severities: str) -> dict[str, Finding]:
    return {one.kind: one for one in findings if one.severity in severities}


def test_a_clean_cohort_has_rates_and_no_finding(clean: list[Case]) -> None:
    findings = find_leaks(clean)
    assert [(one.kind, one.severity, one.value) for one in findings] == [
        ("test-in-train", "rate", 0.0),
        ("val-in-train", "rate", 0.0),
    ]
    assert leaks_between_splits(clean) == []


def test_a_patient_in_two_splits_is_a_leak(clean: list[Case]) -> None:
    (leak,) = leaks_between_splits(changed(clean, "test", patient_id="p-train"))
    assert (leak.kind, leak.severity, leak.cases) == ("patient", "leak", ("train", "test"))
    assert "1 patient(s) in several splits (train and test: 1): p-train (train, test)" in leak.message


def test_two_slides_of_a_tcga_patient_are_a_leak_though_no_patient_is_stated(clean: list[Case]) -> None:
    names = {"train": "TCGA-AA-0001-01Z-00-DX1", "test": "TCGA-AA-0001-01Z-00-DX2.0A1B"}
    cases = [dataclasses.replace(case, patient_id=None) for case in clean]
    for split, name in names.items():
        cases = changed(cases, split, slide_paths=(Path(name + ".svs"),))
    (leak,) = leaks_between_splits(cases)
    assert leak.kind == "patient"
    assert "TCGA-AA-0001" in leak.message


@pytest.mark.parametrize("field", ["slide_paths", "image_paths", "bag_paths"])
def test_a_file_in_two_splits_is_a_leak_under_any_of_its_names(clean: list[Case], tmp_path: Path, field: str) -> None:
    shared = bag(tmp_path / "shared.h5", 9)
    (tmp_path / "link.h5").symlink_to(shared)
    cases = changed(changed(clean, "train", **{field: (shared,)}), "val", **{field: (tmp_path / "link.h5",)})
    (leak,) = leaks_between_splits(cases)
    assert (leak.kind, leak.cases) == ("file", ("train", "val"))
    assert str(shared) in leak.message


def test_the_same_features_in_two_splits_are_a_leak_whatever_the_file_is_called(
    clean: list[Case], tmp_path: Path
) -> None:
    copy = bag(tmp_path / "renamed.h5", seed=0)  # the features of the training bag
    (leak,) = leaks_between_splits(changed(clean, "test", bag_paths=(copy,)))
    assert (leak.kind, leak.severity, leak.cases) == ("features", "leak", ("train", "test"))
    assert "patient_id" in leak.message


def test_a_copy_of_features_in_another_layout_and_type_is_a_leak(clean: list[Case], tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float16).astype(np.float32)
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        file["features"] = features
        file["coords"] = np.zeros((40, 2), np.int64)
    (leak,) = leaks_between_splits(changed(clean, "val", bag_paths=(tmp_path / "clam.h5",)))
    assert leak.kind == "features"


def test_features_that_differ_in_one_number_are_no_leak(clean: list[Case], tmp_path: Path) -> None:
    near = bag(tmp_path / "near.h5", seed=0)
    with h5py.File(near, "r+") as file:
        file["features"][39, 11] += 1
    assert leaks_between_splits(changed(clean, "test", bag_paths=(near,))) == []


def test_features_are_read_only_where_shapes_agree(clean: list[Case], tmp_path: Path, monkeypatch) -> None:
    for number, case in enumerate(clean):
        clean = changed(clean, case.case_id, bag_paths=(bag(tmp_path / f"{number}n.h5", 0, 30 + number),))
    monkeypatch.setattr("wsi_mivpg.cohorts.checks._sha256", lambda *_: pytest.fail("features were read"))
    assert leaks_between_splits(clean) == []


def test_empty_bags_are_not_the_same_slide(clean: list[Case], tmp_path: Path) -> None:
    for case in clean:
        clean = changed(clean, case.case_id, bag_paths=(bag(tmp_path / f"{case.case_id}0.h5", count=0),))
    assert leaks_between_splits(clean) == []
    found = of_kind(find_leaks(clean), "error")["bag"]
    assert "3 case(s) have bags but no tile" in found.message


def test_nothing_leaks_within_a_split_or_without_one(clean: list[Case]) -> None:
    same = [dataclasses.replace(case, split="train", patient_id="p") for case in clean]
    assert leaks_between_splits(same) == []
    bare = find_leaks([dataclasses.replace(case, split=None, patient_id="p") for case in clean])
    assert not of_kind(bare, "leak", "error")
    assert "3 of 3 cases have no split" in of_kind(bare, "warning")["split"].message


def test_a_missing_a_damaged_and_an_incomplete_bag_are_errors(clean: list[Case], tmp_path: Path) -> None:
    (tmp_path / "train.h5").write_bytes(b"no bag")
    (tmp_path / "val.h5").unlink()
    with h5py.File(tmp_path / "test.h5", "r+") as file:
        file.attrs["complete"] = False
    found = of_kind(find_leaks(clean), "error")["bag"]
    assert found.cases == ("train", "val", "test")
    for said in ("3 bag(s) cannot be read", "train.h5", "val.h5: no such bag", "test.h5: the bag is incomplete"):
        assert said in found.message


def test_a_case_without_bag_and_one_that_lacks_a_slides_bag_are_errors(clean: list[Case], tmp_path: Path) -> None:
    cases = changed(clean, "train", bag_paths=())
    cases = changed(cases, "val", slide_paths=(tmp_path / "1.svs", tmp_path / "2.svs"))
    messages = [one.message for one in find_leaks(cases) if one.severity == "error"]
    assert "1 case(s) have no bag: train" in messages[0]
    assert "fewer bags than slides: val (1 of 2)" in messages[1]


def test_a_cohort_that_is_not_extracted_yet_is_no_error(clean: list[Case]) -> None:
    findings = find_leaks([dataclasses.replace(case, bag_paths=()) for case in clean])
    assert not of_kind(findings, "leak", "error")
    assert "no case has a bag yet" in of_kind(findings, "warning")["bag"].message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("encoder", "another", "encoder is not the same everywhere: 'some-encoder' in 2 bag(s)"),
        ("target_mpp", 1.0, "target_mpp is not the same everywhere: 0.5 in 2 bag(s)"),
        ("tile_px", 256, "tile_px is not the same everywhere"),
        ("encoder_weights_sha256", "def", "encoder_weights_sha256 is not the same everywhere"),
        ("feature_dim", 6, "feature_dim is not the same everywhere: 12 in 2 bag(s)"),
    ],
)
def test_bags_that_one_model_cannot_read_are_an_error(
    clean: list[Case], tmp_path: Path, name: str, value: object, said: str
) -> None:
    other = bag(tmp_path / "other.h5", 5, **{name: value})
    found = of_kind(find_leaks(changed(clean, "test", bag_paths=(other,))), "error")["encoder"]
    assert said in found.message
    assert str(other) in found.message
    assert found.cases == ("test",)


def test_an_mpp_that_is_rounded_is_no_mix_and_an_unstated_encoder_is_a_warning(
    clean: list[Case], tmp_path: Path
) -> None:
    rounded = changed(clean, "test", bag_paths=(bag(tmp_path / "r.h5", 5, target_mpp=0.501),))
    assert not of_kind(find_leaks(rounded), "error", "warning")
    unstated = changed(clean, "test", bag_paths=(bag(tmp_path / "u.h5", 5, encoder=""),))
    found = of_kind(find_leaks(unstated), "error", "warning")
    assert list(found) == ["encoder"]
    assert "1 bag(s) do not state their encoder" in found["encoder"].message


def test_a_report_that_is_the_same_in_two_splits_is_told_with_its_rate(clean: list[Case]) -> None:
    findings = find_leaks(changed(clean, "test", reports=(WORDS.upper() + " .",)))
    assert not of_kind(findings, "leak", "error")
    same = of_kind(findings, "warning")["report"]
    assert same.cases == ("train", "test")
    assert "1 report text(s) are the same in several splits" in same.message
    rate = of_kind(findings, "rate")["test-in-train"]
    assert rate.value == 1.0
    assert "0 of 1 (0.0%) word for word, 1 (100.0%) but for case" in rate.message


def test_the_rate_is_told_even_where_there_is_none(clean: list[Case]) -> None:
    rate = verbatim_rate([case for case in clean if case.split != "test"], "test")
    assert (rate.severity, rate.value) == ("rate", None)
    assert "test has no report" in rate.message


def test_the_rate_counts_every_wording(clean: list[Case]) -> None:
    cases = changed(clean, "test", reports=(WORDS, "Something else", WORDS.lower()))
    rate = verbatim_rate(cases, "test")
    assert rate.value == pytest.approx(2 / 3)
    assert "1 of 3 (33.3%) word for word" in rate.message


def test_the_real_captions_repeat_from_train_to_test(shared_data: Path) -> None:
    """239 distinct captions of 991 are known of this set, and that 77 to 82 % of test ones occur in train."""
    from wsi_mivpg.cohorts.importers import import_cohort
    from wsi_mivpg.cohorts.split import split_cases

    made = import_cohort("patchgastric", shared_data / "text" / "patchgastric_captions.csv")
    assert len({text for case in made.cases for text in case.reports}) in range(236, 240)
    shares = {"train": 0.7, "val": 0.1, "test": 0.2}
    cases = split_cases(made.cases, shares, seed=1, stratify="subtype")
    rate = verbatim_rate(cases, "test")
    assert rate.value is not None
    assert 0.74 < rate.value < 0.88


def test_nearly_the_same_report_in_another_split_is_told(clean: list[Case]) -> None:
    near = changed(clean, "test", reports=(WORDS.replace("irregular", "regular"),))
    long = " ".join([WORDS, REPORTS["val"], "of which the margins are free and the nodes are not involved at all"])
    near = changed(near, "val", reports=(long,))
    near = changed(near, "train", reports=(long.replace("free", "positive"),))
    found = of_kind(find_leaks(near), "warning")["near-duplicate"]
    assert found.cases == ("train", "val")
    assert "1 pair(s) of reports are nearly the same" in found.message
    same_split = [dataclasses.replace(case, split="train") for case in near]
    assert "near-duplicate" not in of_kind(find_leaks(same_split), "warning")


def test_pairs_come_with_the_most_alike_first() -> None:
    texts = ["a b c d e f g h i j", "a b c d e f g h i k", "a b c d e f g h x k", "p q r"]
    pairs = near_pairs(texts, least=0.5)
    assert [pair[:2] for pair in pairs] == [(texts[0], texts[1]), (texts[1], texts[2]), (texts[0], texts[2])]
    assert near_pairs(texts, least=0.999) == []


def test_without_scikit_learn_the_rest_is_checked_and_the_gap_is_told(clean: list[Case], monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.startswith("sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    found = of_kind(find_leaks(clean), "warning")["near-duplicate"]
    assert "pip install 'wsi-mivpg[evaluate]'" in found.message


def test_empty_and_missing_reports_are_named(clean: list[Case]) -> None:
    findings = find_leaks(changed(changed(clean, "train", reports=(" .\n",)), "val", reports=()))
    assert of_kind(findings, "error")["report"].cases == ("train",)
    assert of_kind(findings, "warning")["report"].cases == ("val",)


def test_normalised_texts_are_words_alone() -> None:
    assert normalised(" Größe:  3\u00a0mm;\nﬁbrous-tissue. ") == "grösse 3 mm fibrous tissue"
