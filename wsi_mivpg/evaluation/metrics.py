"""BLEU-1..4 and ROUGE-L as in the COCO caption toolkit (pycocoevalcap's Python classes; no Java).

The tokeniser is our own and is named in `signature()`, which belongs beside every published score.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata

from wsi_mivpg.errors import TextsError

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")


def tokenise(text: str) -> list[str]:
    """Lower-case `text` and keep its words and numbers; punctuation and signs separate and are dropped."""
    return _TOKEN.findall(text.lower())


@cache
def signature() -> str:
    """Return what a score was computed with: metric, toolkit version, tokeniser, case, reference length."""
    toolkit = metadata.version("pycocoevalcap")
    return f"bleu+rouge-l|pycocoevalcap:{toolkit}|tok:words+numbers|case:lower|ref:closest"


def text_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return BLEU-1..4 (corpus) and ROUGE-L (mean over cases, beta 1.2), each in 0..1.

    Args:
        predictions: id -> text.
        references: id -> one or more texts, for the same ids.

    Raises:
        TextsError: pycocoevalcap is not installed, or there is nothing to score.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise TextsError("text metrics need pycocoevalcap; pip install 'wsi-mivpg[evaluate]'") from error
    if not predictions:
        raise TextsError("there are no predictions to score")
    written = {name: [" ".join(tokenise(text))] for name, text in predictions.items()}
    wanted = {name: [" ".join(tokenise(text)) for text in references[name]] for name in predictions}
    bleu, _ = Bleu(4).compute_score(wanted, written, verbose=0)
    rouge, _ = Rouge().compute_score(wanted, written)
    return {**{f"bleu_{n}": float(score) for n, score in enumerate(bleu, 1)}, "rouge_l": float(rouge)}


def cider(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> float:
    """Return CIDEr-D (0..10, mean over cases), its word weights counted over these references; 0 for a single case.

    Args:
        predictions: id -> text.
        references: id -> one or more texts, for the same ids.

    Raises:
        TextsError: pycocoevalcap is not installed, or there is nothing to score.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise TextsError("text metrics need pycocoevalcap; pip install 'wsi-mivpg[evaluate]'") from error
    if not predictions:
        raise TextsError("there are no predictions to score")
    written = {name: [" ".join(tokenise(text))] for name, text in predictions.items()}
    wanted = {name: [" ".join(tokenise(text)) for text in references[name]] for name in predictions}
    score, _ = Cider().compute_score(wanted, written)
    return float(score)
