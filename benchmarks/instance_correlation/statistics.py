"""Paired bootstrap of accuracies: cases are drawn anew, and seeds too where several trainings are pooled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A minus B, in accuracy (0..1), with a 95 % interval.

    Attributes:
        per_seed: (difference, low, high) of each seed, over cases alone.
        value, low, high: of all seeds together, over cases and seeds.
    """

    value: float
    low: float
    high: float
    per_seed: tuple[tuple[float, float, float], ...]


def outcomes(results: Sequence[dict[str, object]], field: str) -> Float:
    """Return float (seeds, cases): 1 right, 0 wrong; cases that do not ask the field are left out."""
    table = np.array([result["fields"][field] for result in results], dtype=np.float64)  # type: ignore[index]
    return table[:, ~np.isnan(table[0])]


def paired(first: Float, second: Float, seed: int = 0) -> Difference:
    """Compare (seeds, cases) outcomes of two systems on the same cases, trained with the same seeds."""
    apart = first - second
    rng = np.random.default_rng(seed)
    count, cases = apart.shape
    drawn = rng.multinomial(cases, np.full(cases, 1 / cases), RESAMPLES) / cases
    by_seed = drawn @ apart.T  # (resamples, seeds)
    picked = rng.integers(0, count, (RESAMPLES, count))
    pooled = np.take_along_axis(by_seed, picked, axis=1).mean(axis=1)
    ends = np.percentile(by_seed, (2.5, 97.5), axis=0)
    per_seed = tuple((float(a), float(b), float(c)) for a, b, c in zip(apart.mean(axis=1), *ends, strict=True))
    low, high = np.percentile(pooled, (2.5, 97.5))
    return Difference(float(apart.mean()), float(low), float(high), per_seed)
