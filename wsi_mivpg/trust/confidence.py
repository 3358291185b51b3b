"""From what is known of a sentence to the probability that it is right: logistic regression on validation cases.

Labels are smoothed as Platt did, so that few cases never give a probability of 0 or 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from wsi_mivpg.trust.figures import calibration_error

MOST_REFUSED = 0.05
"""Share of what is right, of sentences as of fields and whole reports, that thresholds may refuse."""
_PENALTY = 1.0
_STEPS = 50
_FOLDS = 5
_LEAST_SCALE = 1e-6


@dataclass(frozen=True)
class Confidence:
    """A fitted logistic regression and the probability below which a sentence is not shown.

    Attributes:
        features: names, in order.
        mean, scale: of each feature on the validation sentences.
        weights: of each standardised feature.
        bias: log-odds of a sentence whose features are all average.
        threshold: a sentence of less confidence is not assessable.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float = 0.0

    def of(self, values: Sequence[float]) -> float:
        """Return the probability that a sentence with these features is right."""
        standard = (np.asarray(values, float) - self.mean) / np.asarray(self.scale)
        return float(expit(standard @ np.asarray(self.weights) + self.bias))


def fit_confidence(features: Sequence[str], rows: NDArray[np.float64], right: NDArray[np.bool_]) -> Confidence:
    """Fit on (n, F) features; with one kind of label alone the confidence hardly depends on them.

    The weights are penalised (ridge), the bias is not; Newton's method finds the one optimum.
    """
    mean, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), _LEAST_SCALE)
    design = np.column_stack([(rows - mean) / scale, np.ones(len(rows))])
    n_right = int(right.sum())
    n_wrong = len(right) - n_right
    targets = np.where(right, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    penalty = np.append(np.full(rows.shape[1], _PENALTY), 1e-6)
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chances = expit(design @ weights)
        gradient = design.T @ (chances - targets) + penalty * weights
        curvature = (design * (chances * (1 - chances))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    own = [tuple(map(float, array)) for array in (mean, scale, weights[:-1])]
    return Confidence(tuple(features), own[0], own[1], own[2], float(weights[-1]))


def out_of_fold(
    features: Sequence[str], rows: NDArray[np.float64], right: NDArray[np.bool_], cases: Sequence[str]
) -> NDArray[np.float64]:
    """Return each sentence's confidence by a fit that has not seen its case, float64 (n,)."""
    names = sorted(set(cases))
    fold = {name: place % _FOLDS for place, name in enumerate(names)}
    folds = np.array([fold[case] for case in cases])
    found = np.zeros(len(rows))
    for number in range(min(_FOLDS, len(names))):
        held = folds == number
        if held.all():
            return np.full(len(rows), (right.sum() + 1) / (len(right) + 2))
        model = fit_confidence(features, rows[~held], right[~held])
        found[held] = [model.of(row) for row in rows[held]]
    return found


def refusing_threshold(confidence: NDArray[np.float64], right: NDArray[np.bool_], most_refused: float) -> float:
    """Return the highest threshold that refuses at most this share of right sentences; 0 where there are too few."""
    kept = np.sort(confidence[right])
    allowed = int(most_refused * (len(kept) + 1)) - 1
    return float(kept[allowed]) if allowed >= 0 else 0.0


def fit_with_threshold(
    features: Sequence[str], rows: NDArray[np.float64], right: NDArray[np.bool_], cases: Sequence[str]
) -> tuple[Confidence, float]:
    """Return the fit on all cases with its threshold, and the calibration error of fits that had not seen the case."""
    unseen = out_of_fold(features, rows, right, cases)
    fitted = fit_confidence(features, rows, right)
    return replace(fitted, threshold=refusing_threshold(unseen, right, MOST_REFUSED)), calibration_error(unseen, right)
