"""Facts that texts state against known truth, as virtual cases have it: organ, finding, extent, number of foci.

A fact that a text does not state counts as wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_mivpg.evaluation.fields import extract_fields
from wsi_mivpg.evaluation.metric import Metric, ratio_of

KEYS = ("organ", "finding", "extent_percent", "n_foci")
_SIGNATURE = "virtual-truth|not-stated-is-wrong"
_TOLERANCE_POINTS = 10
_NO_LESION = "every case is benign"


@dataclass(frozen=True)
class FieldScores:
    """Facts against truth. A fact that a text does not state counts as wrong.

    Attributes:
        n_cases: cases with truth.
        finding_accuracy, organ_accuracy: shares (0..1) of all those cases.
        finding_recall: finding -> share of its cases that were named right.
        n_with_extent: cases whose truth is not benign; the figures below are over these.
        extent_stated: share of them whose text states an extent.
        extent_error: mean absolute error in percentage points where stated; None if nowhere.
        extent_within_10: share of them whose stated extent is within 10 percentage points of the truth.
        foci_accuracy: share of them with the exact number of foci.
    """

    n_cases: int
    finding_accuracy: float
    organ_accuracy: float
    finding_recall: dict[str, float]
    n_with_extent: int
    extent_stated: float | None
    extent_error: float | None
    extent_within_10: float | None
    foci_accuracy: float | None


def is_complete(truths: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether every truth has what is compared here, the extent as a number."""
    return all(
        all(key in truth for key in KEYS)
        and isinstance(truth["extent_percent"], int | float)
        and math.isfinite(truth["extent_percent"])
        for truth in truths.values()
    )


def truth_metrics(texts: Sequence[str], truths: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Return accuracies and the error of the extent; names begin with ``truth.``.

    Args:
        texts: one a case.
        truths: of the same cases, with `KEYS`.
    """
    stated = [extract_fields(text) for text in texts]
    finding = np.array([fields.finding == str(truth["finding"]) for fields, truth in zip(stated, truths, strict=True)])
    organ = [fields.organ == str(truth["organ"]).lower() for fields, truth in zip(stated, truths, strict=True)]
    lesion = np.array([truth["finding"] != "benign" for truth in truths])
    said = np.array([fields.extent_percent is not None for fields in stated]) & lesion
    errors = np.array(
        [
            abs((fields.extent_percent or 0) - truth["extent_percent"])
            for fields, truth in zip(stated, truths, strict=True)
        ]
    )
    foci = [fields.foci == truth["n_foci"] for fields, truth in zip(stated, truths, strict=True)]
    everyone = np.ones(len(texts))

    def metric(name: str, above: Any, below: Any, undefined: str, **rest: Any) -> Metric:
        return ratio_of(f"truth.{name}", _SIGNATURE, above, below, undefined=undefined, **rest)

    metrics = [
        metric("finding_accuracy", finding, everyone, "no case"),
        metric("organ_accuracy", organ, everyone, "no case"),
    ]
    for name in sorted({str(truth["finding"]) for truth in truths}):
        of_it = np.array([str(truth["finding"]) == name for truth in truths])
        metrics.append(metric(f"finding_recall.{name}", finding & of_it, of_it, "no case of it"))
    return [
        *metrics,
        metric("extent_stated", said, lesion, _NO_LESION),
        metric("extent_error", errors * said, said, "no text states an extent", higher_is_better=False),
        metric("extent_within_10", said & (errors <= _TOLERANCE_POINTS), lesion, _NO_LESION),
        metric("foci_accuracy", np.array(foci) & lesion, lesion, _NO_LESION),
    ]


def field_scores(texts: Sequence[str], truths: Sequence[Mapping[str, Any]]) -> FieldScores:
    """Return the same figures by name; None where undefined."""
    values = {metric.name.removeprefix("truth."): metric.overall() for metric in truth_metrics(texts, truths)}
    found = {name: None if np.isnan(value) else value for name, value in values.items()}
    recall = "finding_recall."
    return FieldScores(
        n_cases=len(texts),
        finding_accuracy=found["finding_accuracy"] or 0.0,
        organ_accuracy=found["organ_accuracy"] or 0.0,
        finding_recall={name.removeprefix(recall): value or 0.0 for name, value in found.items() if recall in name},
        n_with_extent=sum(truth["finding"] != "benign" for truth in truths),
        extent_stated=found["extent_stated"],
        extent_error=found["extent_error"],
        extent_within_10=found["extent_within_10"],
        foci_accuracy=found["foci_accuracy"],
    )
