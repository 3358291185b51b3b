"""The short way to an evaluation: text scores and, where truth is known, facts, of predictions in memory.

Ids must match exactly: nothing is dropped in silence. The whole evaluation with its controls is `study.run_study`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.joining import refuse_mismatch
from wsi_mivpg.evaluation.metrics import signature, text_scores
from wsi_mivpg.evaluation.text_files import listed
from wsi_mivpg.evaluation.truth import FieldScores, field_scores


@dataclass(frozen=True)
class Evaluation:
    """Scores in 0..1, the signature of how they were computed, and facts where truth was given."""

    n_cases: int
    scores: dict[str, float]
    signature: str
    fields: FieldScores | None


def evaluate(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    truths: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evaluation:
    """Score predictions against one or more references per case and, where given, against truth.

    Args:
        predictions: case id -> text.
        references: case id -> texts, for exactly the same ids.
        truths: case id -> organ, finding, extent_percent, n_foci; for exactly the same ids.

    Raises:
        TextsError: ids differ (the message lists missing and extra ones), or a case has no reference.
    """
    for others, what in ((references, "references"), (truths, "truths")):
        if others is not None:
            missing = [name for name in others if name not in predictions]
            refuse_mismatch(missing, [name for name in predictions if name not in others], what)
    if bare := [name for name, texts in references.items() if not texts]:
        raise TextsError(f"no reference text for {listed(bare)}; give each case at least one")
    return Evaluation(
        n_cases=len(predictions),
        scores=text_scores(predictions, references),
        signature=signature(),
        fields=None
        if truths is None
        else field_scores(list(predictions.values()), [truths[name] for name in predictions]),
    )
