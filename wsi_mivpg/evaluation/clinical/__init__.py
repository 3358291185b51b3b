"""What a report states, read by rules over a vocabulary in TOML files, and how two reports' statements compare."""

from wsi_mivpg.evaluation.clinical.extract import ClinicalFields, mentioned_terms, read_report
from wsi_mivpg.evaluation.clinical.right import diagnosis_is_right, is_right
from wsi_mivpg.evaluation.clinical.score import clinical_metrics
from wsi_mivpg.evaluation.clinical.vocabulary import Vocabulary, load_vocabulary

__all__ = [
    "ClinicalFields",
    "Vocabulary",
    "clinical_metrics",
    "diagnosis_is_right",
    "is_right",
    "load_vocabulary",
    "mentioned_terms",
    "read_report",
]
