"""Confidence of a structured report's fields: from the model's own probability of a value to that of its being right.

One logistic regression for all fields of a schema, with an offset for each, so that few cases go far.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logit

from wsi_mivpg.errors import CohortError
from wsi_mivpg.trust.confidence import Confidence, fit_with_threshold
from wsi_mivpg.trust.figures import calibration_error

LEAST_JUDGED = 5
"""Values of a field that must have been judged before it is told how sure they are."""
_SUREST = 1e-6


@dataclass(frozen=True)
class JudgedField:
    """A field's value in a calibration case: the model's own probability of it, and whether it is right."""

    case_id: str
    name: str
    probability: float
    right: bool


@dataclass(frozen=True)
class FieldConfidence:
    """What calibration found of a schema's fields.

    Attributes:
        schema: its name, for people.
        names: of the fields that it knows.
        confidence: from the log-odds of a value's probability and from which field it is.
        facts: how it was found, for people.
    """

    schema: str
    names: tuple[str, ...]
    confidence: Confidence
    facts: Mapping[str, int | float] = field(default_factory=dict)

    def of(self, name: str, probability: float) -> float | None:
        """Return the probability that a field's value is right; None of a field that was not calibrated."""
        return self.confidence.of(_row(name, probability, self.names)) if name in self.names else None


def fit_fields(schema: str, judged: Sequence[JudgedField]) -> FieldConfidence:
    """Fit on judged values; the threshold refuses at most 5 % of the right ones.

    Raises:
        CohortError: no field has `LEAST_JUDGED` values that could be judged.
    """
    names = tuple(name for name, count in Counter(one.name for one in judged).items() if count >= LEAST_JUDGED)
    if not names:
        raise CohortError(
            f"no field of {schema} has {LEAST_JUDGED} values that could be judged, so their confidence cannot be "
            'calibrated; give true values as "fields" in the manifest\'s truth, or in columns called like the fields'
        )
    known = [one for one in judged if one.name in names]
    rows = np.array([_row(one.name, one.probability, names) for one in known])
    right = np.array([one.right for one in known], bool)
    fitted, error = fit_with_threshold(("log-odds", *names), rows, right, [one.case_id for one in known])
    own = np.array([one.probability for one in known])
    facts = {
        "values": len(known),
        "right_values": int(right.sum()),
        "own_calibration_error": round(calibration_error(own, right), 4),
        "calibration_error": round(error, 4),
    }
    return FieldConfidence(schema, names, fitted, facts)


def _row(name: str, probability: float, names: Sequence[str]) -> list[float]:
    chance = np.clip(probability, _SUREST, 1 - _SUREST)
    return [float(logit(chance)), *(float(name == one) for one in names)]
