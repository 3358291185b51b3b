"""Confidence of fields: a model's own probabilities become chances of being right, field by field."""

import numpy as np
import pytest
from scipy.special import expit, logit

from wsi_mivpg.errors import CohortError
from wsi_mivpg.trust import FieldConfidence, JudgedField, fit_fields
from wsi_mivpg.trust.fields import LEAST_JUDGED

OFFSETS = {"grade": -2.0, "organ": 2.0}


def overconfident(cases: int, seed: int = 0) -> list[JudgedField]:
    """A model whose log-odds are three times what they should be, with one field harder than the other."""
    rng = np.random.default_rng(seed)
    found = []
    for case in range(cases):
        for name, offset in OFFSETS.items():
            true_odds = rng.normal(0, 1.5) + offset
            right = bool(rng.random() < expit(true_odds))
            found.append(JudgedField(f"c{case}", name, float(expit(3 * (true_odds - offset))), right))
    return found


@pytest.fixture(scope="module")
def fitted() -> FieldConfidence:
    return fit_fields("mine", overconfident(400))


def test_new_values_are_right_as_often_as_it_says(fitted: FieldConfidence) -> None:
    new = overconfident(4000, seed=1)
    told = np.array([fitted.of(one.name, one.probability) for one in new], float)
    right = np.array([one.right for one in new])
    for low in (0.0, 0.25, 0.5, 0.75):
        here = (told >= low) & (told < low + 0.25)
        assert abs(told[here].mean() - right[here].mean()) < 0.06
    assert fitted.facts["calibration_error"] < 0.05 < fitted.facts["own_calibration_error"]


def test_a_hard_field_is_less_sure_than_an_easy_one_at_the_same_probability(fitted: FieldConfidence) -> None:
    hard, easy = fitted.of("grade", 0.9), fitted.of("organ", 0.9)
    assert hard is not None
    assert easy is not None
    assert hard < easy - 0.3
    rising = [fitted.of("grade", probability) or 0.0 for probability in (0.0, 0.2, 0.9, 1.0)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < rising[-1] < 1
    # As it was made: a third of the model's own log-odds, and the field's offset.
    assert hard == pytest.approx(expit(logit(0.9) / 3 + OFFSETS["grade"]), abs=0.1)


def test_the_threshold_refuses_a_twentieth_of_the_right_values_at_most(fitted: FieldConfidence) -> None:
    told = np.array([fitted.of(one.name, one.probability) or 0.0 for one in overconfident(400) if one.right])
    assert 0 < (told < fitted.confidence.threshold).mean() < 0.07


def test_a_field_that_was_hardly_seen_has_no_confidence(fitted: FieldConfidence) -> None:
    rare = [JudgedField(f"c{case}", "margin", 0.9, True) for case in range(LEAST_JUDGED - 1)]
    found = fit_fields("mine", [*overconfident(20), *rare])
    assert found.names == ("grade", "organ")
    assert found.of("margin", 0.9) is None
    assert found.facts["values"] == 40
    with pytest.raises(CohortError, match=r'no field of mine has 5 values .* give true values as "fields"'):
        fit_fields("mine", rare)
