"""GeoJSON: a mask comes back as it went, QuPath's forms are read, malformed files are named with a way out."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.tissue.drawing import overlap
from wsi_mivpg.errors import TissueError, WsiMivpgError
from wsi_mivpg.tissue import TissueMask

SQUARE = [[100, 100], [400, 100], [400, 300], [100, 300], [100, 100]]
HOLE = [[200, 150], [300, 150], [300, 250], [200, 250], [200, 150]]
FAR_SQUARE = [[600, 100], [800, 100], [800, 300], [600, 300], [600, 100]]
SIZE_PX, SLIDE_MPP = (1000, 500), 1.0


def read(content, mask_mpp=1.0):
    return TissueMask.from_geojson(content, SIZE_PX, SLIDE_MPP, mask_mpp=mask_mpp).mask


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    sigma=st.sampled_from([0.0, 1.0, 3.0]),
    share=st.floats(0.05, 0.95),
    downsample=st.sampled_from([1.0, 8.0, 30.4]),
)
def test_a_mask_comes_back_from_geojson(seed, sigma, share, downsample):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 60)), sigma)
    mask = noise > np.quantile(noise, share)
    size_px = (round(60 * downsample), round(40 * downsample))
    tissue = TissueMask(mask, size_px, 8.0 / downsample)
    text = json.dumps(tissue.to_geojson())
    again = TissueMask.from_geojson(json.loads(text), size_px, 8.0 / downsample)
    assert again.mask.shape == mask.shape
    assert overlap(again.mask, mask) > 0.99


def test_a_blank_mask_comes_back_blank():
    tissue = TissueMask(np.zeros((50, 100), dtype=bool), SIZE_PX, SLIDE_MPP)
    assert tissue.to_geojson() == {"type": "FeatureCollection", "features": []}
    assert not read(tissue.to_geojson()).any()


def test_the_written_form_is_what_qupath_opens():
    mask = np.zeros((50, 100), dtype=bool)
    mask[5:20, 5:40] = True
    mask[10:15, 10:20] = False
    first, *others = TissueMask(mask, SIZE_PX, SLIDE_MPP).to_geojson()["features"]
    assert not others
    assert first["geometry"]["type"] == "Polygon"
    assert first["properties"] == {"objectType": "annotation", "classification": {"name": "Tissue"}}
    outer, hole = (np.array(ring) for ring in first["geometry"]["coordinates"])
    assert np.array_equal(outer[0], outer[-1])
    assert np.allclose([outer.min(axis=0), outer.max(axis=0)], [(50, 50), (400, 200)], atol=5)
    assert np.allclose([hole.min(axis=0), hole.max(axis=0)], [(100, 100), (200, 150)], atol=5)


POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
FEATURE = {"type": "Feature", "geometry": POLYGON, "properties": {}}


@pytest.mark.parametrize(
    "content",
    [
        POLYGON,
        FEATURE,
        {"type": "FeatureCollection", "features": [FEATURE]},
        [FEATURE],
        {"type": "MultiPolygon", "coordinates": [POLYGON["coordinates"]]},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 1]}, POLYGON]},
        {"type": "Polygon", "coordinates": [[[*point, 0] for point in SQUARE[:-1]], HOLE]},
    ],
    ids=["geometry", "feature", "collection", "qupath list", "multipolygon", "geometries", "open ring with heights"],
)
def test_every_form_gives_the_same_mask_with_its_hole(content):
    truth = np.zeros((500, 1000), dtype=bool)
    truth[100:300, 100:400] = True
    truth[150:250, 200:300] = False
    assert np.array_equal(read(content), truth)


def test_polygons_add_up_and_a_hole_is_only_its_own_polygons():
    inside_the_hole = [[220, 170], [280, 170], [280, 230], [220, 230], [220, 170]]
    mask = read({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [inside_the_hole], [FAR_SQUARE]]})
    assert mask.sum() == 300 * 200 - 100 * 100 + 60 * 60 + 200 * 200


def test_a_polygon_over_the_edge_is_cut_there():
    mask = read({"type": "Polygon", "coordinates": [[[-50, -50], [100, -50], [100, 900], [-50, 900]]]})
    assert mask[:, :100].all()
    assert not mask[:, 100:].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("3", "expected a GeoJSON object"),
        ('["Polygon"]', "expected a GeoJSON object"),
        ('{"coordinates": []}', "None is not a type"),
        ('{"type": "Circle"}', "'Circle' is not a type"),
        ('{"type": "FeatureCollection"}', "without a list of features"),
        ('{"type": "MultiPolygon", "coordinates": 3}', "without a list of coordinates"),
        ('{"type": "Polygon"}', "without rings"),
        ('{"type": "Polygon", "coordinates": []}', "without rings"),
        ('{"type": "Polygon", "coordinates": [[1, 2, 3]]}', r"list of \[x, y\]"),
        ('{"type": "Polygon", "coordinates": [[["a", 2], [3, 4], [5, 6]]]}', r"list of \[x, y\]"),
        ('{"type": "Polygon", "coordinates": [[[1], [3, 4], [5, 6]]]}', r"list of \[x, y\]"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [1, 2]]]}', "at least 3 different points"),
        ('{"type": "Polygon", "coordinates": [[]]}', "at least 3 different points"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, NaN], [5, 6]]]}', "not a number"),
        ('{"type": "Point", "coordinates": [1, 2]}', "no polygon"),
        (
            '{"type": "Polygon", "coordinates": [[[2000, 0], [3000, 0], [3000, 90]]]}',
            "no polygon lies on the slide of 1000x500 px",
        ),
    ],
)
def test_malformed_files_are_named_with_a_way_out(tmp_path, text, message):
    file = tmp_path / "drawn.geojson"
    file.write_text(text)
    with pytest.raises(TissueError, match=message) as caught:
        read(file)
    assert str(caught.value).startswith(str(file))
    assert isinstance(caught.value, WsiMivpgError)


def test_a_missing_file_a_folder_and_bytes_are_named(tmp_path):
    with pytest.raises(TissueError, match="no such file"):
        read(tmp_path / "gone.geojson")
    with pytest.raises(TissueError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "bytes.geojson").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TissueError, match="not JSON"):
        read(tmp_path / "bytes.geojson")
