"""What supports each sentence as GeoJSON (RFC 7946) that QuPath opens: the top tiles, and the region of the top tenth.

As in QuPath, coordinates are level-0 pixels of one slide, from its top left corner; RFC 7946 (section 4) allows that
by agreement. Which file it goes to is the caller's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_mivpg.evidence.heatmap import rank_scaled, supporting_tiles, top_decile
from wsi_mivpg.evidence.outline import outline, square
from wsi_mivpg.evidence.slide_tiles import SlideTiles
from wsi_mivpg.evidence.units import unit_of
from wsi_mivpg.qupath import DESCRIPTION, classification, feature, geometry

BETTER_THAN_RANDOM = "Better than random (1 is yes)"
"""Name of the figure that says whether a target's map was found better than random ones; 0 is no."""


@dataclass(frozen=True, eq=False)
class Target:
    """What a map supports: a sentence, or the whole report.

    Attributes:
        name: "Sentence 1", "Report".
        text: its words.
        weights: float (M,), for all tiles of the case.
        figures: numbers that belong to it, by name.
    """

    name: str
    text: str
    weights: npt.NDArray[np.float32]
    figures: Mapping[str, float] = field(default_factory=dict)


def collection(slide: SlideTiles, targets: Sequence[Target], method: str, count: int) -> dict[str, Any]:
    """Return a FeatureCollection of one slide: for each target the region of the case's top tenth, then top tiles.

    Each target is a class of its own in QuPath; regions are annotations, tiles detections with weight and rank as
    measurements. A slide that holds none of a target's top tiles has no feature for it.

    Args:
        slide: whose tiles.
        targets: the last colour stands for the one called "Report"; others take turns.
        method: how the weights were found.
        count: at most so many tiles of the case for each target.
    """
    features: list[dict[str, Any]] = []
    if slide.side_l0 > 0:
        for number, target in enumerate(targets):
            features += _features(slide, target, method, count, classification(target.name, number))
    return {"type": "FeatureCollection", "features": features}


def _features(
    slide: SlideTiles, target: Target, method: str, count: int, of_class: dict[str, Any]
) -> list[dict[str, Any]]:
    unit = unit_of(method)
    in_top = slide.of(top_decile(target.weights))
    features = []
    if in_top.any():
        polygons = outline(slide.coords[in_top], slide.side_l0)
        measurements = {"Tiles": int(in_top.sum()), **target.figures}
        name = f"{target.name}: top tenth of the tiles"
        said = {DESCRIPTION: target.text, "Method": method}
        features.append(feature(geometry(polygons), "annotation", name, of_class, measurements, said))
    ranks = slide.of(rank_scaled(target.weights))
    for place, row in enumerate(supporting_tiles(target.weights, count).tolist(), 1):
        index = row - slide.first
        if 0 <= index < len(slide):
            ring = square(slide.coords[index], slide.side_l0)
            weight = float(target.weights[row])
            measurements = {"Place": place, f"Weight ({unit})": weight, "Rank (0 to 1)": float(ranks[index])}
            name = f"{target.name}: tile {place}"
            features.append(feature(geometry([[ring]]), "detection", name, of_class, measurements))
    return features
