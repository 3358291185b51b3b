"""Figures of how well scores tell right from wrong: AUROC, reliability, calibration error, risk and coverage.

Arrays of labels and scores go in; no model and no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Labels = Sequence[bool] | NDArray[np.bool_]
Scores = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Statements of about the same confidence: their number, mean confidence, and the share that is right."""

    count: int
    confidence: float
    right: float


def auroc(positive: Scores, negative: Scores) -> float:
    """Return the probability that a positive scores above a negative, ties half; NaN where one kind is missing."""
    n, m = len(positive), len(negative)
    if not n or not m:
        return float("nan")
    ranks = rankdata(np.concatenate([np.asarray(positive, float), np.asarray(negative, float)]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def reliability(confidence: Scores, right: Labels, bins: int = 5) -> list[Bin]:
    """Return bins of equally many statements, from the least confident to the most."""
    scores, labels = np.asarray(confidence, float), np.asarray(right, bool)
    parts = np.array_split(np.argsort(scores, kind="stable"), min(bins, max(len(scores), 1)))
    return [Bin(len(part), float(scores[part].mean()), float(labels[part].mean())) for part in parts if len(part)]


def calibration_error(confidence: Scores, right: Labels, bins: int = 5) -> float:
    """Return the expected calibration error (ECE): the mean gap of confidence and share right over the bins."""
    found = reliability(confidence, right, bins)
    total = sum(one.count for one in found)
    return sum(one.count * abs(one.confidence - one.right) for one in found) / total if total else float("nan")


def risk_coverage(confidence: Scores, right: Labels) -> list[tuple[float, float]]:
    """Return (share shown, share of the shown that is wrong) as statements are shown from the most confident on."""
    order = np.argsort(-np.asarray(confidence, float), kind="stable")
    wrong = np.cumsum(~np.asarray(right, bool)[order])
    n = np.arange(1, len(order) + 1)
    return [(float(shown), float(risk)) for shown, risk in zip(n / max(len(n), 1), wrong / n, strict=True)]
