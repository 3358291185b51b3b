"""The cases that a reviewer should read first, each with what its two texts state differently."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsi_mivpg.evaluation.clinical import Vocabulary, read_report
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Metric

RANKED_BY = "rouge_l"


@dataclass(frozen=True)
class CaseView:
    """One case to read: texts, its scores, and what the prediction states otherwise than the reference."""

    case_id: str
    patient: str
    prediction: str
    references: tuple[str, ...]
    scores: Mapping[str, float | None]
    only_prediction: tuple[str, ...]
    only_reference: tuple[str, ...]


def worst_cases(
    pairs: Pairs, metrics: Sequence[Metric], patients: Sequence[str], n: int, vocabulary: Vocabulary
) -> tuple[CaseView, ...]:
    """Return the `n` worst cases: those with flipped negations first, then by `RANKED_BY`.

    Args:
        pairs: with the model's texts.
        metrics: of the model, `RANKED_BY` and ``negation_flips`` among them.
        patients: of each case.
        n: how many.
        vocabulary: to tell what the texts state.
    """
    per_case = {metric.name: metric.per_case() for metric in metrics if not metric.name.startswith("field.")}
    flips = np.nan_to_num(per_case["negation_flips"])
    order = np.lexsort((per_case[RANKED_BY], -flips))[:n]
    views = []
    for row in order:
        own = _facts(pairs.predictions[row], vocabulary)
        wanted = frozenset().union(*(_facts(text, vocabulary) for text in pairs.references[row]))
        views.append(
            CaseView(
                pairs.case_ids[row],
                patients[row],
                pairs.predictions[row],
                pairs.references[row],
                {name: None if np.isnan(values[row]) else float(values[row]) for name, values in per_case.items()},
                tuple(sorted(own - wanted)),
                tuple(sorted(wanted - own)),
            )
        )
    return tuple(views)


def _facts(text: str, vocabulary: Vocabulary) -> frozenset[str]:
    fields = read_report(text, vocabulary)
    stated = {f"{name}: {value}" for name, values in fields.statements.items() for value in values}
    return frozenset(stated | {f"{name}: {value:g}" for name, value in fields.numbers.items()})
