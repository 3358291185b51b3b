"""Which tiles support which sentence of a report, how well that is known, and pictures of it.

Works on bags, report models and weights; it opens no slide.
"""

from wsi_mivpg.evidence.attribution import METHODS, attribute
from wsi_mivpg.evidence.faithfulness import Curves, faithfulness
from wsi_mivpg.evidence.heatmap import (
    attention_rgba,
    attention_share_of_top,
    rank_scaled,
    top_tiles,
)
from wsi_mivpg.evidence.sanity import Randomised, label_randomisation, model_randomisation
from wsi_mivpg.evidence.sentences import Span, phrase_tokens, sentence_spans

__all__ = [
    "METHODS",
    "Curves",
    "Randomised",
    "Span",
    "attention_rgba",
    "attention_share_of_top",
    "attribute",
    "faithfulness",
    "label_randomisation",
    "model_randomisation",
    "phrase_tokens",
    "rank_scaled",
    "sentence_spans",
    "top_tiles",
]
