"""Maps agree with what is computed plainly, for every adapter, and rank first what is known to matter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.evidence.conftest import DrawCase
from tests.tiny_captioner import MIVPG, tiny_base, tiny_config
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, in_memory, pack, report_attention, visual_rollout
from wsi_mivpg.captioner.configuration import KNOWN_ADAPTERS
from wsi_mivpg.captioner.sequences import pad_labels
from wsi_mivpg.errors import ModelError
from wsi_mivpg.evidence import METHODS, attribute
from wsi_mivpg.evidence.groups import neighbour_groups

LONG = {**MIVPG, "absorb_from": 8, "chunk_size": 5}


def _captioner(**changes: Any) -> SlideCaptioner:
    torch.manual_seed(0)
    captioner = SlideCaptioner(tiny_config(Path("unused"), trains="adapter", **changes), *tiny_base()).eval()
    with torch.no_grad():  # CSA and PPEG start at zero: here they shall matter
        for name, parameter in captioner.mivpg.named_parameters():
            if "csa" in name or "ppeg" in name:
                parameter.normal_(std=0.3)
    return captioner


@pytest.fixture
def case() -> CaseBags:
    """Two slides of 9 and 14 tiles in their grids."""
    generator = torch.Generator().manual_seed(7)
    place = torch.cat([torch.arange(9), torch.arange(14)])
    cells = torch.stack([place % 4, place // 4, torch.tensor([0] * 9 + [1] * 14)], dim=1)
    return in_memory("c", *(torch.randn(size, 12, generator=generator) for size in (9, 14)), cells=cells)


def _log_likelihood(
    captioner: SlideCaptioner, case: CaseBags, ids: list[int], instances: Tensor | None = None
) -> Tensor:
    """Of all tokens, through the model's loss."""
    packed = pack([case])
    if instances is not None:
        packed["instances"] = instances
    return -captioner(**packed, labels=pad_labels([ids])).loss * len(ids)


SETTINGS: list[dict[str, Any]] = [
    *({"adapter": adapter} for adapter in KNOWN_ADAPTERS),
    {"mivpg": LONG},
    {"mivpg": {**LONG, "csa_carry": "reset"}},
    {"mivpg": {**LONG, "ppeg": "grid"}},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_gradient_is_that_of_autograd_times_the_distance_from_the_mean(changes: dict[str, Any], case: CaseBags) -> None:
    captioner = _captioner(**changes)
    ids = captioner.encode_report("benign")
    found = attribute(captioner, case, ids, [range(len(ids)), range(2), range(2, len(ids))], "gradient")
    instances = pack([case])["instances"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(_log_likelihood(captioner, case, ids, instances), instances)
    expected = ((instances - instances.mean(dim=0)) * slope).sum(dim=1).detach()
    torch.testing.assert_close(found[0], expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)
    torch.testing.assert_close(found[1] + found[2], found[0], atol=1e-4, rtol=1e-3)
    assert all(parameter.grad is None for parameter in captioner.parameters())


def test_gradients_sum_to_what_moving_all_tiles_from_the_mean_changes_at_first(case: CaseBags) -> None:
    captioner = _captioner()
    ids = captioner.encode_report("necrosis")
    total = float(attribute(captioner, case, ids, [range(len(ids))], "gradient").sum())
    instances = pack([case])["instances"]
    mean, step = instances.mean(dim=0), 1e-2
    with torch.no_grad():
        further, nearer = (
            float(_log_likelihood(captioner, case, ids, mean + (1 + sign * step) * (instances - mean)))
            for sign in (1, -1)
        )
    assert total == pytest.approx((further - nearer) / (2 * step), rel=1e-2)


def test_gradient_against_zero_would_be_zero_because_adapters_begin_with_a_layer_norm(case: CaseBags) -> None:
    captioner = _captioner()
    ids = captioner.encode_report("necrosis")
    instances = pack([case])["instances"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(_log_likelihood(captioner, case, ids, instances), instances)
    plain = (instances.detach() * slope).sum(dim=1).abs().max()
    ours = attribute(captioner, case, ids, [range(len(ids))], "gradient").abs().max()
    assert float(plain) < 1e-3 * float(ours)


@pytest.mark.parametrize("adapter", KNOWN_ADAPTERS)
def test_leave_out_is_what_the_likelihood_loses_without_each_group(adapter: str, case: CaseBags) -> None:
    captioner = _captioner(adapter=adapter)
    ids = captioner.encode_report("benign")
    found = attribute(captioner, case, ids, [range(len(ids))], "leave-out")[0]
    groups = neighbour_groups(case)
    features, cells = pack([case])["instances"], case.cells
    assert cells is not None
    with torch.no_grad():
        whole = _log_likelihood(captioner, case, ids)
        for group in (0, 5, 20):
            left = groups != group
            slides = [features[left & (cells[:, 2] == slide)] for slide in (0, 1)]
            without = _log_likelihood(captioner, in_memory("w", *slides, cells=cells[left]), ids)
            expected = float(whole - without) / int((~left).sum())
            assert float(found[groups == group][0]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_attention_is_a_share_and_follows_its_tiles(changes: dict[str, Any], case: CaseBags) -> None:
    captioner = _captioner(**changes)
    ids = captioner.encode_report("benign")
    targets = [range(1), range(len(ids))]
    found = attribute(captioner, case, ids, targets, "attention")
    assert (found > 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))
    order = torch.cat([torch.randperm(9), 9 + torch.randperm(14)])
    assert case.cells is not None
    moved = replace(case, instances=pack([case])["instances"][order], cells=case.cells[order])
    torch.testing.assert_close(attribute(captioner, moved, ids, targets, "attention"), found[:, order])


def test_attention_is_the_product_of_what_words_read_of_queries_and_queries_of_tiles(case: CaseBags) -> None:
    captioner = _captioner()
    ids = captioner.encode_report("benign")
    visual, rests = visual_rollout(captioner, case)
    read = report_attention(captioner, visual, ids)
    product = read[2:4].mean(dim=0) @ rests
    torch.testing.assert_close(attribute(captioner, case, ids, [range(2, 4)], "attention")[0], product / product.sum())


@pytest.mark.parametrize("method", METHODS)
def test_a_mapped_bag_is_weighed_as_one_in_memory(method: str, tmp_path: Path) -> None:
    captioner = _captioner(mivpg=LONG)
    np.save(tmp_path / "bag.npy", np.random.default_rng(0).standard_normal((23, 12)).astype(np.float16))
    mapped = np.load(tmp_path / "bag.npy", mmap_mode="r")
    ids = captioner.encode_report("benign")
    of_mapped, of_held = (
        attribute(captioner, CaseBags("c", bag, (23,)), ids, [range(3)], method)
        for bag in (mapped, torch.from_numpy(np.array(mapped)))
    )
    torch.testing.assert_close(of_mapped, of_held, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("method", "least"), [("attention", 0.5), ("gradient", 0.6), ("leave-out", 0.9)])
def test_what_is_known_to_matter_is_ranked_first(
    method: str, least: float, taught: SlideCaptioner, draw_case: DrawCase
) -> None:
    """By chance a fifth of the first eight would be right."""
    ids = taught.encode_report("necrosis")
    right = []
    for seed in range(6):
        known = draw_case(seed, 8, 0)
        weights = attribute(taught, known.case, ids, [range(1)], method)[0]
        right.append(len(set(weights.topk(8).indices.tolist()) & set(known.speak_for)) / 8)
    assert np.mean(right) >= least


def test_leave_out_tells_what_speaks_for_a_word_from_what_speaks_against_it(
    taught: SlideCaptioner, draw_case: DrawCase
) -> None:
    known = draw_case(3, 6, 6)
    ids = taught.encode_report("necrosis")
    weights = attribute(taught, known.case, ids, [range(1)], "leave-out")[0]
    assert weights[known.speak_for].min() > 0 > weights[known.speak_against].max()
    other = attribute(taught, known.case, taught.encode_report("benign"), [range(1)], "leave-out")[0]
    assert other[known.speak_for].max() < 0 < other[known.speak_against].min()


def test_what_cannot_be_weighed_is_refused_with_a_way_out(case: CaseBags) -> None:
    captioner = _captioner()
    ids = captioner.encode_report("benign")
    with pytest.raises(ModelError, match="'magic' is unknown; choose from 'attention', 'gradient', 'leave-out'"):
        attribute(captioner, case, ids, [range(1)], "magic")
    for target in (range(0), range(5, 99)):
        with pytest.raises(ModelError, match="not within the report's 7 tokens"):
            attribute(captioner, case, ids, [target], "attention")
    one = in_memory("one", torch.zeros(1, 12))
    with pytest.raises(ModelError, match=r"case 'one' has one tile.*'attention' or 'gradient'"):
        attribute(captioner, one, ids, [range(1)], "leave-out")
    assert attribute(captioner, one, ids, [range(1)], "attention").tolist() == [[1.0]]
    with pytest.raises(ModelError, match="evaluation mode"):
        attribute(captioner.train(), case, ids, [range(1)], "attention")
