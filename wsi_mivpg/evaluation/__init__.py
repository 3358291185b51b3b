"""How good are written reports: text metrics, facts read back from the text, and trivial baselines.

Compares texts with texts and with known truth; runs no report model.
"""

from wsi_mivpg.evaluation.baselines import most_frequent
from wsi_mivpg.evaluation.evaluate import (
    Evaluation,
    FieldScores,
    evaluate,
    load_predictions,
    load_references,
    load_texts,
    load_truths,
)
from wsi_mivpg.evaluation.fields import ReportFields, extract_fields
from wsi_mivpg.evaluation.metrics import cider, signature, text_scores, tokenise

__all__ = [
    "Evaluation",
    "FieldScores",
    "ReportFields",
    "cider",
    "evaluate",
    "extract_fields",
    "load_predictions",
    "load_references",
    "load_texts",
    "load_truths",
    "most_frequent",
    "signature",
    "text_scores",
    "tokenise",
]
