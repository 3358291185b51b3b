"""Which tiles support which sentence of a report, how well that is known, and pictures of it.

Works on bags, report models and weights; it opens no slide.
"""

from wsi_mivpg.evidence.attribution import METHODS, attribute
from wsi_mivpg.evidence.faithfulness import Curves, faithfulness
from wsi_mivpg.evidence.geojson import Target, collection
from wsi_mivpg.evidence.heatmap import (
    attention_rgba,
    attention_share_of_top,
    rank_scaled,
    supporting_tiles,
    top_tiles,
)
from wsi_mivpg.evidence.pictures import SCALES, figure, overlay, size_within
from wsi_mivpg.evidence.sanity import Randomised, label_randomisation, model_randomisation
from wsi_mivpg.evidence.sentences import Span, phrase_tokens, sentence_spans
from wsi_mivpg.evidence.slide_tiles import SlideTiles, slides_of
from wsi_mivpg.evidence.store import Evidence, read_evidence, write_evidence
from wsi_mivpg.evidence.units import DEFAULT_METHOD, unit_of

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "SCALES",
    "Curves",
    "Evidence",
    "Randomised",
    "SlideTiles",
    "Span",
    "Target",
    "attention_rgba",
    "attention_share_of_top",
    "attribute",
    "collection",
    "faithfulness",
    "figure",
    "label_randomisation",
    "model_randomisation",
    "overlay",
    "phrase_tokens",
    "rank_scaled",
    "read_evidence",
    "sentence_spans",
    "size_within",
    "slides_of",
    "supporting_tiles",
    "top_tiles",
    "unit_of",
    "write_evidence",
]
