"""Intervals and tests are those of scipy where scipy has them, and draw patients, not cases."""

import numpy as np
import pytest
from scipy import stats

from wsi_mivpg.evaluation.coco import coco_metrics
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import mean_of, ratio_of
from wsi_mivpg.evaluation.statistics import interval, paired, resampled

RNG = np.random.default_rng(0)


def names(n: int) -> list[str]:
    return [f"p{i}" for i in range(n)]


def test_the_interval_of_a_mean_is_scipys_percentile_bootstrap():
    scores = RNG.beta(2, 3, 200)
    found = interval(resampled([mean_of("m", "s", scores)], names(200), 4000, 1)[0], 200)
    expected = stats.bootstrap((scores,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_about_95_of_100_intervals_hold_the_truth():
    held = 0
    for seed in range(200):
        scores = np.random.default_rng(seed).exponential(1.0, 80)
        found = interval(resampled([mean_of("m", "s", scores)], names(80), 400, seed)[0], 80)
        held += found.low <= 1.0 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_resampled_corpus_bleu_is_bleu_of_the_resampled_cases():
    words = ["a", "b", "c", "d", "e"]
    texts = [" ".join(RNG.choice(words, 8)) for _ in range(20)]
    wanted = [" ".join(RNG.choice(words, 8)) for _ in range(20)]
    metrics = coco_metrics(Pairs(tuple(names(20)), tuple(texts), tuple((one,) for one in wanted)), "words")
    found = resampled(metrics, names(20), 3, 7)[3]
    rng = np.random.default_rng(7)
    for row, drawn in enumerate(rng.integers(20, size=(3, 20))):
        again = Pairs(tuple(names(20)), tuple(texts[i] for i in drawn), tuple((wanted[i],) for i in drawn))
        assert coco_metrics(again, "words")[3].overall() == pytest.approx(found[row], abs=1e-12)


def test_cases_of_one_patient_are_drawn_together():
    scores = np.repeat(RNG.random(20), 10)
    alone = interval(resampled([mean_of("m", "s", scores)], names(200), 2000, 0)[0], 200)
    patients = [f"p{i // 10}" for i in range(200)]
    together = interval(resampled([mean_of("m", "s", scores)], patients, 2000, 0)[0], 20)
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)  # ten copies of a patient are no ten patients


def test_one_patient_has_no_interval_and_says_so():
    values = resampled([mean_of("m", "s", [0.1, 0.9])], ["p", "p"], 100, 0)[0]
    assert interval(values, 1).reason == "one patient: nothing to resample"


def test_a_figure_that_few_patients_have_says_how_often_it_was_defined():
    rare = ratio_of("m", "s", [1.0, 0, 0, 0], [1.0, 0, 0, 0])
    assert "resamples in which it is defined" in str(interval(resampled([rare], names(4), 1000, 0)[0], 4).reason)
    never = ratio_of("m", "s", [0.0, 0.0], [0.0, 0.0])
    assert "too few" in str(interval(resampled([never], names(2), 100, 0)[0], 2).reason)


def test_the_paired_test_is_scipys_permutation_test():
    a = RNG.normal(0.5, 0.2, 40)
    b = a - RNG.normal(0.05, 0.15, 40)
    found = paired([mean_of("m", "s", a)], [mean_of("m", "s", b)], names(40), 2500, 3)["m"]
    expected = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x) - np.mean(y), permutation_type="samples", n_resamples=9999, rng=4
    )
    assert found.value == pytest.approx(np.mean(a - b))
    assert found.p == pytest.approx(expected.pvalue, abs=0.012)


def test_equal_systems_are_not_told_apart_and_a_better_one_is():
    a = RNG.random(60)
    same = paired([mean_of("m", "s", a)], [mean_of("m", "s", a)], names(60), 500, 0)["m"]
    assert (same.value, same.p, same.favours) == (0.0, 1.0, None)
    better = paired([mean_of("m", "s", a + 0.2)], [mean_of("m", "s", a)], names(60), 500, 0)["m"]
    assert better.favours == "A"
    assert better.p < 0.01
    error = paired(
        [mean_of("m", "s", a + 0.2, higher_is_better=False)],
        [mean_of("m", "s", a, higher_is_better=False)],
        names(60),
        500,
        0,
    )["m"]
    assert error.favours == "B"


def test_noise_is_called_a_difference_as_often_as_it_should_be():
    rng = np.random.default_rng(5)
    p_values = []
    for seed in range(200):
        a, b = rng.random(30), rng.random(30)
        p_values.append(paired([mean_of("m", "s", a)], [mean_of("m", "s", b)], names(30), 100, seed)["m"].p)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10


def test_holm_corrects_the_family_and_nothing_else():
    rows = [RNG.random(50) for _ in range(4)]
    shift = [0.02, 0.03, 0.0, 0.5]
    first = [mean_of(str(i), "s", row + shift[i] + RNG.normal(0, 0.1, 50)) for i, row in enumerate(rows)]
    second = [mean_of(str(i), "s", row) for i, row in enumerate(rows)]
    found = paired(first, second, names(50), 500, 0, family=("0", "1", "2"))
    assert found["3"].p_holm is None
    raw = sorted((found[name].p, name) for name in "012")
    expected, highest = {}, 0.0
    for rank, (p, name) in enumerate(raw):
        highest = max(highest, min(1.0, (3 - rank) * p))
        expected[name] = highest
    assert {name: found[name].p_holm for name in "012"} == pytest.approx(expected)


def test_an_undefined_difference_has_its_reason_and_no_number():
    nothing = mean_of("m", "s", np.full(5, np.nan), undefined="because")
    found = paired([nothing], [mean_of("m", "s", np.zeros(5))], names(5), 100, 0)["m"]
    assert (found.value, found.p, found.interval.reason) == (None, None, "because")


def test_the_same_seed_gives_the_same_figures():
    metric = mean_of("m", "s", RNG.random(30))
    first, second = (resampled([metric], names(30), 200, 9)[0] for _ in range(2))
    assert first.tolist() == second.tolist()
