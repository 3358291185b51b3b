"""The first stage teaches the adapter what reports state, and leaves the language model alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_captioner import tiny_config, write_tiny_language_model
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.training.alignment import ReportTargets, align
from wsi_mivpg.training.data import Example
from wsi_mivpg.training.recipe import AlignmentSettings


def test_tokens_that_say_nothing_are_no_targets() -> None:
    reports = [(1, 2, 3), (1, 2, 4), (1, 3, 4), (1, 5, 3)]
    targets = ReportTargets([Example(str(i), torch.zeros(1, 2), (report,)) for i, report in enumerate(reports)])
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


def test_aligned_prompts_tell_kinds_of_bags_apart_and_the_language_model_is_untouched(tmp_path: Path) -> None:
    write_tiny_language_model(tmp_path)
    torch.manual_seed(0)
    captioner = SlideCaptioner.create(tiny_config(tmp_path))
    before = {name: tensor.clone() for name, tensor in captioner.language_model.state_dict().items()}
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2, 12))
    texts = ("aaa bbb 10%", "ccc ddd 80%")

    def bag(kind: int) -> torch.Tensor:
        return torch.from_numpy(0.5 * centres[kind] + rng.standard_normal((12, 12))).half()

    examples = [Example(str(i), bag(i % 2), (tuple(captioner.encode_report(texts[i % 2])),)) for i in range(24)]
    first = align(captioner, examples, AlignmentSettings(steps=4, lr=1e-3), seed=1)
    last = align(captioner, examples, AlignmentSettings(steps=120, lr=2e-3), seed=1)
    assert last < 0.3 * first
    captioner.eval()
    unseen = [bag(kind).float() for kind in (0, 0, 0, 1, 1, 1)]
    with torch.no_grad():
        prompts = captioner.mivpg(torch.cat(unseen), [12] * 6).visual_prompt.mean(dim=1)
    distances = torch.cdist(prompts, prompts)
    within = distances[:3, :3].max(), distances[3:, 3:].max()
    assert max(within) < distances[:3, 3:].min()
    for name, tensor in captioner.language_model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
