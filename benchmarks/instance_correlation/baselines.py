"""What needs no model of ours: the most frequent value of each field, and logistic regression on a case's colours."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wsi_mivpg.evaluation import most_frequent

from .cohort import VirtualCase
from .training import judge
from .wording import Stated, compose_report, stated

MOST_FREQUENT, MOST_FREQUENT_REPORT, COLOURS = "most frequent value", "most frequent report", "colour statistics"
BASELINES = (MOST_FREQUENT_REPORT, MOST_FREQUENT, COLOURS)


def run_baseline(name: str, train: Sequence[VirtualCase], test: Sequence[VirtualCase], source: str) -> dict[str, Any]:
    """Judge a baseline like a system; it has no seed."""
    if name == MOST_FREQUENT_REPORT:
        texts = [most_frequent([case.report for case in train])] * len(test)
    else:
        known = [asdict(stated(case.truth)) for case in train]
        guesses = {
            field: _most_frequent(known, field, len(test))
            if name == MOST_FREQUENT
            else _by_colour(known, field, train, test)
            for field in known[0]
        }
        texts = [
            compose_report(Stated(**dict(zip(guesses, row, strict=True))), source)
            for row in zip(*guesses.values(), strict=True)
        ]
    return {
        "system": name,
        "source": source,
        "seed": 0,
        "n_train": len(train),
        "n_test": len(test),
        **judge(texts, test, source),
        "texts": texts[:20],
    }


def _most_frequent(known: Sequence[dict[str, Any]], field: str, count: int) -> list[Any]:
    return [Counter(one[field] for one in known).most_common(1)[0][0]] * count


def _by_colour(
    known: Sequence[dict[str, Any]], field: str, train: Sequence[VirtualCase], test: Sequence[VirtualCase]
) -> list[Any]:
    values = sorted({one[field] for one in known})
    if len(values) == 1:
        return values * len(test)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(np.stack([case.colours for case in train]), [values.index(one[field]) for one in known])
    return [values[int(place)] for place in model.predict(np.stack([case.colours for case in test]))]
