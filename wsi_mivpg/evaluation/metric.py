"""What a metric is here: additive statistics of each case, and the value of any sum of them.

Because statistics add up, the value over all cases, over one case and over every bootstrap sample of patients is the
same small function of a sum; corpus BLEU and a mean of scores are treated alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Metric:
    """One figure about a system's texts.

    Attributes:
        name: as in tables.
        signature: how it is computed: toolkit or formula, tokeniser, case, version, parameters.
        statistics: float64 (n_cases, k).
        value: summed statistics (..., k) -> figure (...), NaN where it is undefined.
        undefined: why it can be undefined, for the reader.
        higher_is_better: False for errors; None where neither is better.
    """

    name: str
    signature: str
    statistics: Array
    value: Callable[[Array], Array]
    undefined: str = "no case to score"
    higher_is_better: bool | None = True

    def overall(self) -> float:
        """Return the figure over all cases; NaN where undefined."""
        return float(self.value(self.statistics.sum(axis=0)))

    def per_case(self) -> Array:
        """Return the figure of each case by itself, float64 (n_cases,)."""
        return self.value(self.statistics)


def ratio(sums: Array) -> Array:
    """Return the first of two summed statistics over the second; NaN where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def mean_of(name: str, signature: str, scores: Sequence[float] | Array, **rest: object) -> Metric:
    """Return the metric that is the mean of one score a case."""
    found = np.asarray(scores, np.float64)
    return Metric(name, signature, np.stack([found, np.ones_like(found)], axis=1), ratio, **rest)  # type: ignore[arg-type]


def ratio_of(
    name: str, signature: str, above: Sequence[float] | Array, below: Sequence[float] | Array, **rest: object
) -> Metric:
    """Return the metric that is the sum of one statistic over the sum of another."""
    statistics = np.stack([np.asarray(above, np.float64), np.asarray(below, np.float64)], axis=1)
    return Metric(name, signature, statistics, ratio, **rest)  # type: ignore[arg-type]
