"""Whose slides a model is shown instead of a case's own, to see whether it looks at them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError


def with_other_slides(cases: Sequence[Case], *, seed: int) -> list[Case]:
    """Return the cases, each with the bags of a case of another patient; every case's bags are used once.

    Raises:
        CohortError: one patient has more than half of the cases, so that there is no such exchange.
    """
    order = np.random.default_rng(seed).permutation(len(cases))
    drawn = [cases[place] for place in order]
    turn = {patient: place for place, patient in enumerate(dict.fromkeys(case.patient for case in drawn))}
    ordered = sorted(drawn, key=lambda case: turn[case.patient])
    most = max(Counter(case.patient for case in cases).values(), default=0)
    if 2 * most > len(cases):
        raise CohortError(
            f"{most} of {len(cases)} cases are one patient's, so that not every case can be shown another patient's "
            "slides; give more patients"
        )
    # Patients lie in one piece each, none longer than `most`: so many places further there is another one.
    given = {case.case_id: ordered[place - most].bag_paths for place, case in enumerate(ordered)}
    return [case.with_bags(given[case.case_id]) for case in cases]
