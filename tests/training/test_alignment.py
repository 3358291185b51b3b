"""The first stage teaches the adapter what reports state, and leaves the language model alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.tiny_cohort import tiny_recipe, write_case
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.captioner.inputs import pack, read_case
from wsi_mivpg.training.alignment import ReportTargets, align
from wsi_mivpg.training.cases import made_alike
from wsi_mivpg.training.data import CaseDataset, Example, Sampling, load_examples
from wsi_mivpg.training.settings import AlignmentSettings
from wsi_mivpg.training.train import new_captioner


def test_tokens_that_say_nothing_are_no_targets() -> None:
    reports = [(1, 2, 3), (1, 2, 4), (1, 3, 4), (1, 5, 3)]
    targets = ReportTargets([Example(str(i), (), (report,)) for i, report in enumerate(reports)])
    assert targets.token_ids.tolist() == [2, 3, 4]  # 1 is everywhere, 5 only once
    assert targets.words((1, 2, 4)).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "reached"), [("in 35% of it", 7), ("5 % and 90%", 1), ("about 97.5%", 19), ("in 2% of it", 0)]
)
def test_the_first_percentage_is_an_ordered_target(text: str, reached: int) -> None:
    steps = ReportTargets.steps(text)
    assert steps.sum() == reached
    assert steps[:reached].all()


def test_a_report_without_a_percentage_has_no_such_target() -> None:
    assert ReportTargets.steps("benign").isnan().all()


def _prompts(captioner: SlideCaptioner, folder: Path) -> torch.Tensor:
    """The mean prompt token of three unseen bags of each of two kinds, (6, width)."""
    unseen = [write_case(folder, f"unseen{kind}{index}", kind) for kind in (0, 1) for index in range(3)]
    captioner.eval()
    with torch.no_grad():
        packed = pack([read_case(case.case_id, [FeatureBag.open(case.bag_paths[0])]) for case in unseen])
        return captioner.visual_prompt(**packed)[0].mean(dim=1)


def test_aligned_prompts_tell_kinds_of_bags_apart_and_the_language_model_is_untouched(tmp_path: Path) -> None:
    cases = [write_case(tmp_path, f"case{index}", index % 2) for index in range(24)]
    texts = ("aaa bbb 10%", "ccc ddd 80%")
    cases = [replace(case, reports=(texts[index % 2],)) for index, case in enumerate(cases)]
    torch.manual_seed(0)
    captioner = new_captioner(tiny_recipe(tmp_path / "base"), made_alike(cases))
    before = {name: tensor.clone() for name, tensor in captioner.language_model.state_dict().items()}
    seen = CaseDataset(load_examples(cases, captioner, 64), Sampling(1, instance_dropout=0.5))
    first = align(captioner, seen, AlignmentSettings(steps=4, lr=1e-3), 1, tmp_path / "first")
    last = align(captioner, seen, AlignmentSettings(steps=120, lr=2e-3), 1, tmp_path / "last")
    assert last < 0.3 * first
    prompts = _prompts(captioner, tmp_path)
    distances = torch.cdist(prompts, prompts)
    within = distances[:3, :3].max(), distances[3:, 3:].max()
    assert max(within) < distances[:3, 3:].min()
    for name, tensor in captioner.language_model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_an_alignment_that_was_finished_is_not_done_again(tmp_path: Path) -> None:
    cases = [write_case(tmp_path, f"case{index}", index % 2) for index in range(4)]
    recipe, settings = tiny_recipe(tmp_path / "base"), AlignmentSettings(steps=6, lr=1e-3, batch_size=2)
    made = []
    said: list[int] = []
    for _ in range(2):
        torch.manual_seed(0)
        captioner = new_captioner(recipe, made_alike(cases))
        seen = CaseDataset(load_examples(cases, captioner, 64), Sampling(1))
        align(captioner, seen, settings, 1, tmp_path / "out", lambda done, total, words: said.append(done))
        made.append(_prompts(captioner, tmp_path))
    assert torch.equal(*made)
    assert said == list(range(1, 7))
