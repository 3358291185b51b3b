"""The tiles that a report and its sentences rest on, as GeoJSON (RFC 7946) that QuPath opens; one file per slide.

From the report alone: whole maps need the evidence's file, and are `wsi-mivpg explain`'s. Coordinates are level-0
pixels of the slide, as in QuPath.
"""

import math
from typing import Any

import numpy as np

from wsi_mivpg.qupath import DESCRIPTION, classification, feature, geometry
from wsi_mivpg.reports.forms.document import UNVERIFIED, gate_line, sentence_in_words, warnings
from wsi_mivpg.reports.report import Report, TopTile
from wsi_mivpg.reports.support import map_method


def collections(report: Report) -> dict[str, dict[str, Any]]:
    """Return slide id -> FeatureCollection; slides without any tile of the report have no features.

    A tile is a detection of the class "Report" or "Sentence N", with its place and weight as measurements. What the
    report says, and on whose word, is the member "report" of every collection.
    """
    texts = {"Report": report.shown_text} | {
        f"Sentence {number}": sentence_in_words(sentence) for number, sentence in enumerate(report.sentences, 1)
    }
    tiles = {"Report": report.top_tiles} | {
        f"Sentence {number}": sentence.top_tiles for number, sentence in enumerate(report.sentences, 1)
    }
    methods = {"Report": map_method(report)} | {
        f"Sentence {number}": sentence.method or "no method" for number, sentence in enumerate(report.sentences, 1)
    }
    features: dict[str, list[dict[str, Any]]] = {slide.slide_id: [] for slide in report.slides}
    # The first sentence has the first colour here and in `explain`.
    for number, name in enumerate(texts, -1):
        for place, tile in enumerate(tiles[name], 1):
            if math.isfinite(tile.size_l0_px) and math.isfinite(tile.weight):
                found = _tile(tile, name, number, place, texts[name], methods[name])
                features.setdefault(tile.slide_id, []).append(found)
    told = _told(report)
    return {
        slide_id: {"type": "FeatureCollection", "report": told, "features": found}
        for slide_id, found in features.items()
    }


def _tile(tile: TopTile, name: str, number: int, place: int, text: str, method: str) -> dict[str, Any]:
    left, top = tile.x, tile.y
    right, bottom = left + tile.size_l0_px, top + tile.size_l0_px
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return feature(
        geometry([[np.array(ring, np.float64)]]),
        "detection",
        f"{name}: tile {place}",
        classification(name, number),
        {"Place": place, f"Weight ({method})": tile.weight},
        {DESCRIPTION: text, "Method": method, "Origin": UNVERIFIED},
    )


def _told(report: Report) -> dict[str, Any]:
    return {
        "case_id": report.case_id,
        "text": report.shown_text,
        "status": UNVERIFIED,
        "supported": report.is_known_to_be_supported,
        "checks": [gate_line(gate) for gate in report.gates],
        "warnings": warnings(report),
        "created": report.provenance.created,
        "model": report.model,
        "disclaimer": report.disclaimer,
    }
