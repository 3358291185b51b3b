"""Masks as GeoJSON polygons in QuPath's form, and back.

It reads, checks and rasterises polygons and writes outlines; which slide they belong to is the caller's business.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import draw, measure

from wsi_mivpg.errors import TissueError

# scikit-image ships partly untyped functions.
_draw: Any = draw
_measure: Any = measure

Ring = npt.NDArray[np.float64]

# Below this an outline between pixel centres never moves across one, so a mask comes back as it went.
_TOLERANCE_PX = 0.3
_WAY_OUT = "export it from QuPath as GeoJSON, or write polygons in level-0 pixels"


def collection_of(mask: npt.NDArray[np.bool_], downsample: tuple[float, float]) -> dict[str, Any]:
    """Return a FeatureCollection with a Polygon (outer ring first, then holes) for each connected region.

    Args:
        mask: bool[H, W].
        downsample: (x, y) level-0 px per mask pixel.
    """
    labels, _ = ndimage.label(mask)
    features = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        region = np.pad(labels[rows, columns] == label, 1).astype(np.float32)
        # Padded pixel (r, c) has its centre at (r - 0.5, c - 0.5) of the region.
        corner = np.array([columns.start, rows.start]) - 0.5
        rings = [
            (_measure.approximate_polygon(contour, tolerance=_TOLERANCE_PX)[:, ::-1] + corner) * downsample
            for contour in _measure.find_contours(region, 0.5)
        ]
        # The outer ring encloses the largest area; GeoJSON wants it first.
        rings.sort(key=_ring_area, reverse=True)
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring.tolist() for ring in rings]},
                "properties": {"objectType": "annotation", "classification": {"name": "Tissue"}},
            }
        )
    return {"type": "FeatureCollection", "features": features}


def mask_of(
    source: Path | dict[str, Any] | list[Any], where: str, slide_size_px: tuple[int, int], shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Rasterise polygons: a pixel is set if its centre is inside an outer ring and in none of its holes.

    Args:
        source: a GeoJSON file or its content.
        where: how errors name the source.
        slide_size_px: (width, height) of level 0.
        shape: (height, width) of the mask.

    Returns:
        bool[H, W].

    Raises:
        TissueError: the source cannot be read, is malformed, or has shapes but none with an area on the slide.
    """
    content = _content(source, where) if isinstance(source, Path) else source
    geometries = list(_geometries(content, where))
    polygons = [_rings(polygon, where) for geometry in geometries for polygon in _polygons(geometry, where)]
    if geometries and not polygons:
        raise TissueError(f"{where}: it holds points or lines but no polygon; draw closed areas around the tissue")
    scale = np.array([shape[1] / slide_size_px[0], shape[0] / slide_size_px[1]])
    mask = np.zeros(shape, dtype=bool)
    for outer, *holes in polygons:
        region = _inside(outer * scale, shape)
        for hole in holes:
            region &= ~_inside(hole * scale, shape)
        mask |= region
    if polygons and not _any_on(polygons, slide_size_px):
        width, height = slide_size_px
        raise TissueError(
            f"{where}: no polygon lies on the slide of {width}x{height} px; coordinates have to be pixels of level 0"
        )
    return mask


def _content(path: Path, where: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TissueError(f"{where}: no such file; check the path of the GeoJSON") from None
    except OSError as error:
        raise TissueError(f"{where}: cannot be read ({error.strerror}); name a GeoJSON file") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TissueError(f"{where}: not JSON ({error}); {_WAY_OUT}") from error
    except RecursionError:
        raise TissueError(f"{where}: nested too deeply; {_WAY_OUT}") from None


def _geometries(item: Any, where: str) -> Iterator[dict[str, Any]]:
    """Yield bare geometries from a collection, a feature, QuPath's list of features or a geometry."""
    if isinstance(item, list):
        for part in item:
            yield from _geometries(part, where)
        return
    if not isinstance(item, dict):
        raise TissueError(f"{where}: expected a GeoJSON object, found {_short(item)}; {_WAY_OUT}")
    kind = item.get("type")
    if kind == "FeatureCollection":
        yield from _geometries(_listed(item, "features", where), where)
    elif kind == "GeometryCollection":
        yield from _geometries(_listed(item, "geometries", where), where)
    elif kind == "Feature":
        # The standard allows a feature without a place.
        if item.get("geometry") is not None:
            yield from _geometries(item["geometry"], where)
    elif kind in ("Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString"):
        yield item
    else:
        raise TissueError(f"{where}: {_short(kind)} is not a type of GeoJSON; {_WAY_OUT}")


def _listed(item: dict[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(item.get(key), list):
        raise TissueError(f"{where}: a {item['type']} without a list of {key}; {_WAY_OUT}")
    listed: list[Any] = item[key]
    return listed


def _polygons(geometry: dict[str, Any], where: str) -> list[Any]:
    if geometry["type"] == "Polygon":
        return [geometry.get("coordinates")]
    if geometry["type"] == "MultiPolygon":
        return _listed(geometry, "coordinates", where)
    return []


def _rings(polygon: Any, where: str) -> list[Ring]:
    if not isinstance(polygon, list) or not polygon:
        raise TissueError(f"{where}: a polygon without rings of coordinates; {_WAY_OUT}")
    return [_ring(ring, where) for ring in polygon]


def _ring(ring: Any, where: str) -> Ring:
    try:
        # A third number, the height, is allowed and means nothing here.
        points = np.array([(float(point[0]), float(point[1])) for point in ring], dtype=np.float64)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise TissueError(f"{where}: a ring has to be a list of [x, y], found {_short(ring)}; {_WAY_OUT}") from error
    if not np.isfinite(points).all():
        raise TissueError(f"{where}: a ring holds a coordinate that is not a number; {_WAY_OUT}")
    if len(np.unique(points, axis=0)) < 3:
        raise TissueError(f"{where}: a ring needs at least 3 different points, found {_short(ring)}; {_WAY_OUT}")
    return points


def _inside(ring: Ring, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centres are inside a ring given in mask pixels with edges at whole numbers."""
    region = np.zeros(shape, dtype=bool)
    rows, columns = _draw.polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, shape)
    region[rows, columns] = True
    return region


def _any_on(polygons: list[list[Ring]], slide_size_px: tuple[int, int]) -> bool:
    return any(
        (rings[0].max(axis=0) > 0).all() and (rings[0].min(axis=0) < np.array(slide_size_px)).all()
        for rings in polygons
    )


def _ring_area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
