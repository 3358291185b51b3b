"""Figures and fits agree with scikit-learn and with what is known of made-up data."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from wsi_mivpg.errors import CohortError
from wsi_mivpg.trust import distribution
from wsi_mivpg.trust.calibration import joint_thresholds
from wsi_mivpg.trust.confidence import fit_confidence, out_of_fold, refusing_threshold
from wsi_mivpg.trust.figures import auroc, calibration_error, reliability, risk_coverage


def test_auroc_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(2, 9, 30), rng.integers(0, 7, 40)
    labels = [1] * 30 + [0] * 40
    assert auroc(positive, negative) == pytest.approx(roc_auc_score(labels, [*positive, *negative]))
    assert np.isnan(auroc([], [1.0]))


def test_calibrated_scores_have_no_error_and_sure_wrong_ones_all() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(size=20_000)
    right = rng.uniform(size=20_000) < confidence
    assert calibration_error(confidence, right, bins=10) < 0.02
    assert calibration_error([1.0, 1.0], [False, False]) == 1
    assert sum(one.count for one in reliability(confidence[:7], right[:7])) == 7


def test_risk_falls_as_only_the_surest_are_shown() -> None:
    curve = risk_coverage([0.9, 0.2, 0.6, 0.4], [True, False, True, False])
    assert curve == [(0.25, 0.0), (0.5, 0.0), (0.75, pytest.approx(1 / 3)), (1.0, 0.5)]


def test_confidence_is_a_ridge_logistic_regression() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(400, 3)) * [1, 5, 0.1] + [0, 3, -2]
    right = rng.uniform(size=400) < 1 / (1 + np.exp(-2 * rows[:, 0]))
    fitted = fit_confidence(("a", "b", "c"), rows, right)
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    theirs = LogisticRegression(C=1.0, tol=1e-8).fit(standard, right)
    ours = np.array([fitted.of(row) for row in rows])
    # Labels are smoothed, which with 400 sentences moves a probability by no more than this.
    assert np.abs(ours - theirs.predict_proba(standard)[:, 1]).max() < 0.02
    unseen = out_of_fold(("a", "b", "c"), rows, right, [str(place // 2) for place in range(400)])
    assert calibration_error(unseen, right) < 0.08


def test_with_right_sentences_alone_confidence_is_high_and_never_one() -> None:
    rows = np.random.default_rng(3).normal(size=(30, 2))
    fitted = fit_confidence(("a", "b"), rows, np.ones(30, bool))
    assert all(0.9 < fitted.of(row) < 1 for row in rows)


def test_thresholds_together_refuse_no_more_right_reports_than_asked() -> None:
    rng = np.random.default_rng(4)
    values = {"one": rng.normal(size=200), "two": rng.normal(size=200), "three": rng.normal(size=200)}
    found = joint_thresholds(values)
    refused = np.any([values[name] < found[name].shut for name in values], axis=0)
    assert 0.02 < refused.mean() <= 0.05
    few = joint_thresholds({"one": np.array([3.0, 1.0, 2.0])})["one"]
    assert (few.shut, few.usual) == (1.0, 2.0)


def test_a_sentence_threshold_keeps_nineteen_of_twenty_right_sentences() -> None:
    confidence = np.linspace(0.01, 1, 100)
    right = np.ones(100, bool)
    right[::2] = False
    threshold = refusing_threshold(confidence, right, 0.05)
    assert (confidence[right] < threshold).mean() <= 0.05
    assert refusing_threshold(confidence[:10], right[:10], 0.05) == 0


def test_the_distance_is_that_of_the_ledoit_wolf_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    mixing = rng.normal(size=(12, 30))
    rows = (rng.normal(size=(60, 12)) @ mixing + 0.3 * rng.normal(size=(60, 30)) + 5).astype(np.float32)
    monkeypatch.setattr(distribution, "DIRECTIONS", 30)
    fitted = distribution.fit_training_cases(list(rows))
    standard = (rows.astype(np.float64) - fitted.mean) / fitted.scale
    assert distribution.ledoit_wolf_shrinkage(standard) == pytest.approx(
        ledoit_wolf_shrinkage(standard, assume_centered=True), rel=1e-6
    )
    theirs = LedoitWolf(assume_centered=True).fit(standard)
    new = rows[:5] + rng.normal(size=(5, 30)).astype(np.float32)
    expected = np.sqrt(theirs.mahalanobis((new - fitted.mean) / fitted.scale) / 30)
    np.testing.assert_allclose(fitted.mahalanobis(new), expected, rtol=1e-3)


def test_few_training_cases_are_refused_and_a_constant_feature_makes_nothing_infinite() -> None:
    rows = [np.append(np.random.default_rng(place).normal(size=9), 1).astype(np.float32) for place in range(20)]
    with pytest.raises(CohortError, match="3 training cases are too few"):
        distribution.fit_training_cases(rows[:3])
    fitted = distribution.fit_training_cases(rows)
    assert np.isfinite(fitted.mahalanobis(np.stack(rows))).all()
