"""The short way to text scores: BLEU-1..4, ROUGE-L and CIDEr-D over words and numbers, for training and quick looks.

The tokeniser is our own and is named in `signature()`, which belongs beside every published score.
"""

from collections.abc import Mapping, Sequence

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.coco import coco_metrics
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Metric
from wsi_mivpg.evaluation.tokenisers import NAMES, tokenise

__all__ = ["cider", "signature", "text_scores", "tokenise"]


def signature() -> str:
    """Return what `text_scores` computes: metrics, tokeniser, case, reference length."""
    return f"bleu+rouge-l|as:pycocoevalcap-1.2|tok:{NAMES['words']}|ref:closest|beta:1.2"


def text_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return BLEU-1..4 (corpus) and ROUGE-L (mean over cases, beta 1.2), each in 0..1.

    Args:
        predictions: id -> text.
        references: id -> one or more texts, for the same ids.

    Raises:
        TextsError: there is nothing to score.
    """
    wanted = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l")
    return {metric.name: metric.overall() for metric in _metrics(predictions, references) if metric.name in wanted}


def cider(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> float:
    """Return CIDEr-D (0..10, mean over cases), its word weights counted over these references; 0 for a single case.

    Args:
        predictions: id -> text.
        references: id -> one or more texts, for the same ids.

    Raises:
        TextsError: there is nothing to score.
    """
    found = next(metric for metric in _metrics(predictions, references) if metric.name == "cider_d")
    return found.overall() if len(predictions) > 1 else 0.0


def _metrics(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> list[Metric]:
    if not predictions:
        raise TextsError("there are no predictions to score")
    ids = tuple(predictions)
    return coco_metrics(Pairs(ids, tuple(predictions.values()), tuple(tuple(references[i]) for i in ids)), "words")
