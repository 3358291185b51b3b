"""What a step sees of a case depends on seed, epoch and case alone, and is read when it is needed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.training.tiny_cohort import tiny_recipe, write_case, write_cases
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import BagError, CohortError, ModelError
from wsi_mivpg.mivpg.chunks import as_tensor
from wsi_mivpg.training.cases import made_alike
from wsi_mivpg.training.data import CaseDataset, Example, Sampling, collate, load_examples
from wsi_mivpg.training.train import new_captioner


def _examples(cases: list[Case]) -> list[Example]:
    bags = [tuple(FeatureBag.open(path) for path in case.bag_paths) for case in cases]
    return [Example(case.case_id, opened, ((1, 2), (3, 4, 5))) for case, opened in zip(cases, bags, strict=True)]


@pytest.fixture
def captioner(tmp_path: Path) -> SlideCaptioner:
    cases = write_cases(tmp_path / "other", train=1)
    return new_captioner(tiny_recipe(tmp_path / "base"), made_alike(cases))


def _drawn(dataset: CaseDataset, workers: int = 0) -> list[dict]:
    return list(DataLoader(dataset, batch_size=2, collate_fn=collate, num_workers=workers))


def test_draws_are_the_same_with_and_without_workers_and_differ_between_epochs(tmp_path: Path) -> None:
    dataset = CaseDataset(_examples(write_cases(tmp_path)), Sampling(seed=1, max_instances=4, instance_dropout=0.5))
    alone, helped = _drawn(dataset), _drawn(dataset, workers=2)
    for one, two in zip(alone, helped, strict=True):
        assert torch.equal(one["instances"], two["instances"])
        assert torch.equal(one["labels"], two["labels"])
    dataset.epoch = 1
    assert not torch.equal(torch.cat([b["instances"] for b in alone])[:3], _drawn(dataset)[0]["instances"][:3])


def test_a_draw_does_not_depend_on_what_was_drawn_before(tmp_path: Path) -> None:
    dataset = CaseDataset(_examples(write_cases(tmp_path)), Sampling(seed=1, instance_dropout=0.9))
    last = dataset[3]["case"].instances
    _drawn(dataset)
    assert torch.equal(as_tensor(last), as_tensor(dataset[3]["case"].instances))


def test_the_cap_is_shared_fairly_by_a_cases_slides(tmp_path: Path) -> None:
    case = write_case(tmp_path, "big", 0, tiles=(40, 3, 60))
    (example,) = _examples([case])
    item = CaseDataset([example], Sampling(seed=0, max_instances=23))[0]
    assert item["case"].slide_sizes == (10, 3, 10)


def test_evaluation_uses_all_instances_and_the_first_wording(tmp_path: Path) -> None:
    case = write_case(tmp_path, "big", 0, tiles=(40, 3))
    (batch,) = _drawn(CaseDataset(_examples([case])))
    assert batch["slide_sizes"] == [[40, 3]]
    assert batch["labels"].tolist() == [[1, 2]]
    assert batch["case_ids"] == ["big"]


def test_a_step_keeps_at_least_the_promised_share_of_each_bag(tmp_path: Path) -> None:
    case = write_case(tmp_path, "one", 0, tiles=(10,))
    dataset = CaseDataset(_examples([case] * 50), Sampling(seed=0, instance_dropout=0.3))
    sizes = [sum(dataset[index]["case"].slide_sizes) for index in range(50)]
    assert 7 <= min(sizes) < max(sizes) == 10


def test_bags_are_read_when_they_are_needed_not_before(
    tmp_path: Path, captioner: SlideCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    view = FeatureBag.features_view

    def counting(bag: FeatureBag) -> np.ndarray:
        read.append(bag.slide_id)
        return view(bag)

    monkeypatch.setattr(FeatureBag, "features_view", counting)
    monkeypatch.setattr(FeatureBag, "features", property(counting))
    dataset = CaseDataset(load_examples(write_cases(tmp_path), captioner, 64), Sampling(seed=0))
    assert read == []
    dataset[2]
    assert read == ["train2-0"]


def test_reports_that_cannot_be_learned_are_refused_with_their_length(
    tmp_path: Path, captioner: SlideCaptioner
) -> None:
    def with_report(*texts: str) -> list[Case]:
        case = write_case(tmp_path, "c1", 0)
        return [Case("c1", (), case.bag_paths, texts, "train")]

    with pytest.raises(CohortError, match="'c1' has no report"):
        load_examples(with_report(), captioner, 64)
    with pytest.raises(CohortError, match="'c1': its report '  ' has no token"):
        load_examples(with_report("  "), captioner, 64)
    with pytest.raises(
        CohortError, match=r"'c1': its report has 65 tokens, but model\.max_report_tokens is 64; set it"
    ):
        load_examples(with_report("x" * 64), captioner, 64)
    assert len(load_examples(with_report("x" * 63), captioner, 64)[0].reports[0]) == 64


def test_a_case_without_tiles_and_a_bag_of_another_width_are_named(tmp_path: Path, captioner: SlideCaptioner) -> None:
    empty = write_case(tmp_path, "empty", 0, tiles=(0,))
    with pytest.raises(CohortError, match="'empty' has no tile"):
        load_examples([empty], captioner, 64)
    captioner.config.feature_dim = 13
    with pytest.raises((ModelError, BagError), match="feature_dim"):
        load_examples([write_case(tmp_path, "narrow", 0)], captioner, 64)


def test_all_wordings_are_drawn(tmp_path: Path) -> None:
    dataset = CaseDataset(_examples([write_case(tmp_path, "one", 0)]), Sampling(seed=0))
    drawn = set()
    for epoch in range(20):
        dataset.epoch = epoch
        drawn.add(dataset[0]["report"])
    assert drawn == {(1, 2), (3, 4, 5)}
