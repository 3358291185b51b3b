"""How sure a figure is: intervals from resampled patients, and tests between two systems on the same patients.

Patients are drawn, not cases: cases of one patient are no independent evidence. The same draws serve every system, so
that differences are paired.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.evaluation.metric import Array, Metric

_CHUNK = 64
_LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; None with a reason where there is none."""

    low: float | None
    high: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Difference:
    """One metric of system A minus system B on the same cases.

    Attributes:
        value: the difference; None where either is undefined.
        interval: of the difference, from paired draws.
        p: two-sided, by swapping the systems' texts of whole patients at random.
        p_holm: `p` corrected by Holm for the metrics of a family; None for others.
        favours: "A", "B", or None where neither direction is better or the interval holds 0.
    """

    value: float | None
    interval: Interval
    p: float | None
    p_holm: float | None
    favours: str | None


def patient_rows(patients: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Return the number of each case's patient, int64 (n_cases,), and how many patients there are."""
    numbers: dict[str, int] = {}
    rows = np.array([numbers.setdefault(name, len(numbers)) for name in patients], np.int64)
    return rows, len(numbers)


def resampled(metrics: Sequence[Metric], patients: Sequence[str], n_resamples: int, seed: int) -> list[Array]:
    """Return each metric's values over samples of patients drawn with replacement, float64 (n_resamples,) each."""
    rows, n_patients = patient_rows(patients)
    sums, parts = _by_patient(metrics, rows, n_patients)
    draws = [weights @ sums for weights in _draws(n_patients, n_resamples, seed)]
    return _values(metrics, np.concatenate(draws), parts)


def interval(values: Array, n_patients: int) -> Interval:
    """Return the percentile interval of resampled values.

    Args:
        values: float64 (n_resamples,), NaN where a sample left the figure undefined.
        n_patients: with one there is nothing to resample.
    """
    if n_patients < 2:
        return Interval(None, None, "one patient: nothing to resample")
    defined = values[~np.isnan(values)]
    if len(defined) < len(values) / 2:
        return Interval(None, None, "undefined in most resamples: too few patients have it")
    low, high = np.percentile(defined, _LEVEL)
    rare = len(values) - len(defined)
    reason = f"over the {len(defined)} of {len(values)} resamples in which it is defined" if rare else None
    return Interval(float(low), float(high), reason)


def paired(
    first: Sequence[Metric],
    second: Sequence[Metric],
    patients: Sequence[str],
    n_resamples: int,
    seed: int,
    family: Collection[str] = (),
) -> dict[str, Difference]:
    """Compare two systems' metrics of the same names on the same cases, metric by metric.

    Args:
        first, second: the metrics of systems A and B; those that only one has are left out.
        patients: of each case.
        n_resamples: bootstrap samples; four times as many permutations.
        seed: of both.
        family: names of the metrics that Holm's correction is for: those that a reader will look at together.
    """
    other = {metric.name: metric for metric in second}
    a = [metric for metric in first if metric.name in other]
    b = [other[metric.name] for metric in a]
    rows, n_patients = patient_rows(patients)
    apart = [
        x - y
        for x, y in zip(
            resampled(a, patients, n_resamples, seed), resampled(b, patients, n_resamples, seed), strict=True
        )
    ]
    p_values = _permuted(a, b, rows, n_patients, 4 * n_resamples, seed)
    members = [row for row, metric in enumerate(a) if metric.name in family and not np.isnan(metric.overall())]
    corrected: list[float | None] = [None] * len(a)
    for row, after in zip(members, _holm([p_values[row] for row in members]), strict=True):
        corrected[row] = after
    found = {}
    for metric, counterpart, values, p, p_holm in zip(a, b, apart, p_values, corrected, strict=True):
        difference = metric.overall() - counterpart.overall()
        within = interval(values, n_patients)
        favours = None
        if metric.higher_is_better is not None and within.low is not None and within.high is not None:
            sign = 1 if metric.higher_is_better else -1
            low, high = sorted((sign * within.low, sign * within.high))
            favours = "A" if low > 0 else "B" if high < 0 else None
        undefined = bool(np.isnan(difference))
        found[metric.name] = Difference(
            None if undefined else difference,
            Interval(None, None, metric.undefined) if undefined else within,
            None if undefined else p,
            None if undefined else p_holm,
            None if undefined else favours,
        )
    return found


def _by_patient(
    metrics: Sequence[Metric], rows: NDArray[np.int64], n_patients: int
) -> tuple[Array, list[tuple[int, int]]]:
    """All metrics' statistics summed by patient, float64 (n_patients, columns), and each metric's columns."""
    columns: list[Array] = []
    parts: list[tuple[int, int]] = []
    known: dict[int, tuple[int, int]] = {}
    at = 0
    for metric in metrics:
        place = known.get(id(metric.statistics))  # BLEU-1..4 share theirs
        if place is None:
            place = (at, at + metric.statistics.shape[1])
            known[id(metric.statistics)] = place
            columns.append(metric.statistics)
            at = place[1]
        parts.append(place)
    sums = np.zeros((n_patients, at))
    np.add.at(sums, rows, np.concatenate(columns, axis=1))
    return sums, parts


def _draws(n_patients: int, n_resamples: int, seed: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, _CHUNK):
        size = min(_CHUNK, n_resamples - start)
        drawn = rng.integers(n_patients, size=(size, n_patients)) + n_patients * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n_patients).reshape(size, n_patients).astype(np.float64)


def _values(metrics: Sequence[Metric], sums: Array, parts: Sequence[tuple[int, int]]) -> list[Array]:
    return [metric.value(sums[:, low:high]) for metric, (low, high) in zip(metrics, parts, strict=True)]


def _permuted(
    a: Sequence[Metric], b: Sequence[Metric], rows: NDArray[np.int64], n_patients: int, n: int, seed: int
) -> list[float]:
    """Two-sided p of each difference under random swaps of the two systems, patient by patient."""
    own, parts = _by_patient(a, rows, n_patients)
    others, _ = _by_patient(b, rows, n_patients)
    gap, total_a, total_b = others - own, own.sum(axis=0), others.sum(axis=0)
    rng = np.random.default_rng(seed)
    extreme = np.zeros(len(a))
    true = np.abs([x.overall() - y.overall() for x, y in zip(a, b, strict=True)])
    for start in range(0, n, _CHUNK):
        size = min(_CHUNK, n - start)
        swapped = rng.integers(0, 2, size=(size, n_patients), dtype=np.int8).astype(np.float64) @ gap
        values_a, values_b = _values(a, total_a + swapped, parts), _values(b, total_b - swapped, parts)
        for row, (one, two) in enumerate(zip(values_a, values_b, strict=True)):
            extreme[row] += (np.nan_to_num(np.abs(one - two), nan=np.inf) >= true[row] - 1e-12).sum()
    return [float(p) for p in (extreme + 1) / (n + 1)]


def _holm(p_values: Sequence[float]) -> list[float]:
    order = np.argsort(p_values)
    corrected = np.empty(len(p_values))
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = highest
    return [float(p) for p in corrected]
