"""What QuPath asks of a GeoJSON feature: kind, name, class with its colour, and numbers. Geometry is the caller's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Okabe and Ito's colours, which colour-blind people can tell apart.
_PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (204, 121, 167), (0, 114, 178), (240, 228, 66))
_REPORT_COLOUR = (255, 255, 255)
DESCRIPTION = "ANNOTATION_DESCRIPTION"
"""Key in a feature's metadata of what QuPath shows as an annotation's text."""


def classification(name: str, number: int) -> dict[str, Any]:
    """Return a class: white for the one called "Report", one of seven colours in turn for the others."""
    return {"name": name, "color": list(_REPORT_COLOUR if name == "Report" else _PALETTE[number % len(_PALETTE)])}


def feature(
    geometry: dict[str, Any],
    kind: str,
    name: str,
    of_class: dict[str, Any],
    measurements: Mapping[str, float],
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a GeoJSON feature; `kind` is "annotation" or "detection"."""
    properties = {
        "objectType": kind,
        "name": name,
        "classification": of_class,
        "measurements": dict(measurements),
    }
    if metadata:
        properties["metadata"] = dict(metadata)
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def geometry(polygons: Sequence[Sequence[npt.NDArray[np.floating]]]) -> dict[str, Any]:
    """Return a Polygon, or a MultiPolygon of several; each is its rings, the outer one first, float (K, 2)."""
    rings = [[np.round(ring, 2).tolist() for ring in polygon] for polygon in polygons]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}
