"""A map that is true is said to be better than random, noise is not, and the figures are what they say."""

import numpy as np
import pytest
import torch

from tests.evidence.conftest import DrawCase
from wsi_mivpg.captioner import SlideCaptioner, in_memory, pack, subset
from wsi_mivpg.captioner.sequences import pad_labels
from wsi_mivpg.errors import ModelError
from wsi_mivpg.evidence import Curves, attribute, faithfulness
from wsi_mivpg.reports.report import Faithfulness


def _better(curves: Curves) -> bool:
    return Faithfulness(**curves.summary()).better_than_random


def test_a_true_map_is_better_than_random_and_noise_is_not(taught: SlideCaptioner, draw_case: DrawCase) -> None:
    known = draw_case(5, 100, 200, 400)
    ids = taught.encode_report("necrosis")
    true = torch.zeros(400)
    true[known.speak_for], true[known.speak_against] = 1.0, -1.0
    found = attribute(taught, known.case, ids, [range(1)], "leave-out")
    noise = torch.rand(30, 400, generator=torch.Generator().manual_seed(1))
    maps = torch.cat([true[None], found, -true[None], noise])
    curves = faithfulness(taught, known.case, ids, [range(1)] * len(maps), maps)
    assert _better(curves[0])
    assert _better(curves[1])
    assert not _better(curves[2])
    assert sum(map(_better, curves[3:])) <= 2  # by chance fewer than one in forty


def test_curves_are_the_likelihoods_of_bags_with_tiles_really_left_out(
    taught: SlideCaptioner, draw_case: DrawCase
) -> None:
    case = draw_case(1, 6, 6).case
    ids = taught.encode_report("benign")
    weights = torch.randn(1, 40, generator=torch.Generator().manual_seed(0))
    curves = faithfulness(taught, case, ids, [range(len(ids))], weights, fractions=(0.25, 0.75), random_orders=2)[0]
    order = weights[0].argsort(descending=True)
    norms = pack([case])["instances"].norm(dim=1).argsort(descending=True)
    for place, taken in enumerate((10, 30)):
        for found, rows in (
            (curves.deletion, order[taken:]),
            (curves.insertion, order[:taken]),
            (curves.feature_norm_deletion, norms[taken:]),
            (curves.feature_norm_insertion, norms[:taken]),
        ):
            part = subset(case, rows.sort().values)
            with torch.no_grad():
                loss = taught(**pack([part]), labels=pad_labels([ids])).loss
            assert found[place] == pytest.approx(-float(loss) * len(ids), abs=1e-3)
    assert curves.random_deletion.shape == (2, 2)


def test_the_seed_decides_and_the_batch_size_does_not(taught: SlideCaptioner, draw_case: DrawCase) -> None:
    case = draw_case(2, 8, 2).case
    ids = taught.encode_report("necrosis")
    maps = torch.rand(1, 40, generator=torch.Generator().manual_seed(0))
    one, again, other = (
        faithfulness(taught, case, ids, [range(3)], maps, seed=seed, batch_size=size)[0]
        for seed, size in ((0, 16), (0, 3), (1, 16))
    )
    np.testing.assert_allclose(one.random_deletion, again.random_deletion, atol=1e-4)
    np.testing.assert_allclose(one.deletion, other.deletion, atol=1e-4)
    assert np.abs(one.random_deletion - other.random_deletion).max() > 1e-3


def test_areas_are_means_over_the_fractions_and_intervals_those_of_one_more_random_order() -> None:
    rng = np.random.default_rng(0)
    flat = np.zeros(3)
    inside = 0
    for _ in range(2000):
        random = rng.normal(size=(8, 3))
        noise = rng.normal(size=3)  # a map that is no better than the random orders are
        summary = Curves(flat, 0.0, noise, noise, random, random, flat + 1, flat - 2, flat, flat + 0.5).summary()
        inside += summary["deletion_interval"][0] <= 0 <= summary["deletion_interval"][1]
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)
    assert summary["deletion"] == pytest.approx(random.mean() - noise.mean())
    assert summary["insertion"] == pytest.approx(noise.mean() - random.mean())
    assert summary["deletion_over_feature_norm"] == pytest.approx(1 - noise.mean())
    assert summary["insertion_over_feature_norm"] == pytest.approx(noise.mean() + 2)
    assert summary["deletion_over_uniform"] == pytest.approx(-noise.mean())
    assert summary["insertion_over_uniform"] == pytest.approx(noise.mean() - 0.5)
    assert Faithfulness(**summary).random_orders == 8


def test_what_cannot_be_tested_is_refused(taught: SlideCaptioner, draw_case: DrawCase) -> None:
    case, ids = draw_case(0, 4, 4).case, taught.encode_report("benign")
    maps = torch.rand(1, 40)
    with pytest.raises(ModelError, match="has one tile"):
        faithfulness(taught, in_memory("one", torch.zeros(1, 12)), ids, [range(1)], maps[:, :1])
    with pytest.raises(ModelError, match="give one of 40 tiles for each target"):
        faithfulness(taught, case, ids, [range(1)] * 2, maps)
    with pytest.raises(ModelError, match="NaN"):
        faithfulness(taught, case, ids, [range(1)], maps * float("nan"))
    with pytest.raises(ModelError, match="random_orders is 1"):
        faithfulness(taught, case, ids, [range(1)], maps, random_orders=1)
    with pytest.raises(ModelError, match="between 0 and 1"):
        faithfulness(taught, case, ids, [range(1)], maps, fractions=(0.5, 1.0))
