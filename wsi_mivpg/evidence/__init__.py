"""Which tiles support which sentence of a report, how well that is known, and pictures of it.

Works on bags, report models and weights; it opens no slide. What weighs tiles loads torch when it is asked for: the
viewer, which reads weights that are there, does without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wsi_mivpg.evidence.geojson import Target, collection
from wsi_mivpg.evidence.heatmap import (
    attention_rgba,
    attention_share_of_top,
    rank_scaled,
    supporting_tiles,
    top_tiles,
)
from wsi_mivpg.evidence.measured import Curves
from wsi_mivpg.evidence.pictures import SCALES, figure, overlay, size_within
from wsi_mivpg.evidence.slide_tiles import SlideTiles, slides_of
from wsi_mivpg.evidence.store import Evidence, read_evidence, write_evidence
from wsi_mivpg.evidence.units import DEFAULT_METHOD, unit_of

if TYPE_CHECKING:
    from wsi_mivpg.evidence.attribution import METHODS, attribute
    from wsi_mivpg.evidence.curves import faithfulness
    from wsi_mivpg.evidence.sanity import Randomised, label_randomisation, model_randomisation
    from wsi_mivpg.evidence.sentences import Span, phrase_tokens, sentence_spans

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

_LOADED_WHEN_ASKED_FOR = {
    "attribution": ("METHODS", "attribute"),
    "curves": ("faithfulness",),
    "sanity": ("Randomised", "label_randomisation", "model_randomisation"),
    "sentences": ("Span", "phrase_tokens", "sentence_spans"),
}
_HOME = {name: module for module, names in _LOADED_WHEN_ASKED_FOR.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
