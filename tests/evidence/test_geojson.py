"""GeoJSON that readers of the standard and QuPath both take: valid, by class, with numbers."""

import json
from itertools import pairwise

import geojson
import numpy as np
import pytest

from wsi_mivpg.evidence.geojson import Target, collection
from wsi_mivpg.evidence.slide_tiles import SlideTiles

SIDE = 444.25
CELLS = np.array([(column, row) for row in range(8) for column in range(10)])
COORDS = np.rint(CELLS * SIDE).astype(np.int64)
SLIDES = (
    SlideTiles("one", 0, COORDS, SIDE, (4500, 3600)),
    SlideTiles("two", 80, COORDS[:40] + 7, SIDE, (4500, 3600)),
    SlideTiles("unknown", 120, np.full((5, 2), -1), SIDE, None),
)
RNG = np.random.default_rng(0)
TARGETS = [
    Target("Sentence 1", "Lung: „adenocarcinoma“.", RNG.normal(size=125).astype(np.float32), {"Deletion (nats)": 0.5}),
    Target("Report", "All of it.", RNG.random(125, np.float32)),
]


@pytest.fixture(scope="module")
def first() -> dict:
    return json.loads(json.dumps(collection(SLIDES[0], TARGETS, "gradient", 6)))


def rings(feature: dict) -> list:
    geometry = feature["geometry"]
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return [(place, ring) for polygon in polygons for place, ring in enumerate(polygon)]


def test_it_is_valid_by_an_outside_reader_and_its_rings_follow_the_standard(first: dict):
    read = geojson.loads(json.dumps(first))
    assert isinstance(read, geojson.FeatureCollection)
    assert read.is_valid, read.errors()
    for feature in first["features"]:
        for place, ring in rings(feature):
            assert ring[0] == ring[-1]
            assert len(ring) >= 5
            area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2
            assert (area > 0) == (place == 0)  # the right-hand rule: outer rings against the clock, holes with it


def test_every_feature_says_what_qupath_asks_for(first: dict):
    assert first["type"] == "FeatureCollection"
    names = [feature["properties"]["name"] for feature in first["features"]]
    assert len(set(names)) == len(names)
    for feature in first["features"]:
        assert feature.keys() == {"type", "geometry", "properties"}
        properties = feature["properties"]
        assert properties["objectType"] in ("annotation", "detection")
        assert properties["classification"]["name"] in ("Sentence 1", "Report")
        colour = properties["classification"]["color"]
        assert len(colour) == 3
        assert all(isinstance(part, int) and 0 <= part <= 255 for part in colour)
        assert all(isinstance(value, int | float) for value in properties["measurements"].values())
    colours = {tuple(f["properties"]["classification"]["color"]) for f in first["features"]}
    assert len(colours) == 2


def test_the_tiles_are_the_cases_best_with_their_weights_at_their_places():
    weights = TARGETS[0].weights
    best = np.argsort(-weights, kind="stable")[:6]
    found = {}
    for slide in SLIDES:
        for feature in collection(slide, TARGETS[:1], "gradient", 6)["features"]:
            if feature["properties"]["objectType"] == "detection":
                found[feature["properties"]["measurements"]["Place"]] = (slide, feature)
    drawable = [place for place, row in enumerate(best, 1) if row < 120]
    assert sorted(found) == drawable
    for place in drawable:
        slide, feature = found[place]
        row = best[place - 1]
        ring = np.array(feature["geometry"]["coordinates"][0])
        np.testing.assert_array_equal(ring.min(axis=0), slide.coords[row - slide.first])
        np.testing.assert_allclose(np.ptp(ring, axis=0), SIDE, atol=0.01)
        measurements = feature["properties"]["measurements"]
        assert measurements["Weight (nats, to first order)"] == pytest.approx(float(weights[row]))
        assert measurements["Rank (0 to 1)"] == pytest.approx((125 - place) / 124)


def test_the_region_is_the_slides_part_of_the_cases_top_tenth():
    tiles = 0
    for slide in SLIDES[:2]:
        (region,) = (
            feature
            for feature in collection(slide, TARGETS[:1], "gradient", 6)["features"]
            if feature["properties"]["objectType"] == "annotation"
        )
        area = sum(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2 for _, ring in rings(region))
        measurements = region["properties"]["measurements"]
        assert area == pytest.approx(measurements["Tiles"] * SIDE**2, rel=0.01)
        assert measurements["Deletion (nats)"] == 0.5
        assert region["properties"]["metadata"]["ANNOTATION_DESCRIPTION"] == TARGETS[0].text
        tiles += measurements["Tiles"]
    of_unknown = int((np.argsort(-TARGETS[0].weights, kind="stable")[:12] >= 120).sum())
    assert tiles == 12 - of_unknown


def test_tiles_without_places_give_an_empty_collection():
    empty = collection(SLIDES[2], TARGETS, "gradient", 6)
    assert empty == {"type": "FeatureCollection", "features": []}
