"""How good are written reports: text metrics, clinical fields, trivial baselines, controls, and how sure all that is.

Compares texts with texts and with known truth; runs no report model.
"""

from wsi_mivpg.evaluation.baselines import most_frequent, most_frequent_of_class, nearest_neighbour
from wsi_mivpg.evaluation.clinical import ClinicalFields, read_report
from wsi_mivpg.evaluation.evaluate import Evaluation, evaluate
from wsi_mivpg.evaluation.fields import ReportFields, extract_fields
from wsi_mivpg.evaluation.joining import JoinReport, Pairs, join
from wsi_mivpg.evaluation.metrics import cider, signature, text_scores, tokenise
from wsi_mivpg.evaluation.readers import gather, load_predictions, load_references, load_texts, load_truths
from wsi_mivpg.evaluation.study import Settings, Study, run_study
from wsi_mivpg.evaluation.truth import FieldScores

__all__ = [
    "ClinicalFields",
    "Evaluation",
    "FieldScores",
    "JoinReport",
    "Pairs",
    "ReportFields",
    "Settings",
    "Study",
    "cider",
    "evaluate",
    "extract_fields",
    "gather",
    "join",
    "load_predictions",
    "load_references",
    "load_texts",
    "load_truths",
    "most_frequent",
    "most_frequent_of_class",
    "nearest_neighbour",
    "read_report",
    "run_study",
    "signature",
    "text_scores",
    "tokenise",
]
