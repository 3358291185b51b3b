"""Choosing a method: each is named on the mask, plug-ins load by name, errors say what there is."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from tests.conftest import Ellipse, Rectangle
from wsi_mivpg.errors import TissueError
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tissue import TISSUE_METHOD, TissueMask, find_tissue, finding


def test_tissue_is_found_where_it_was_painted(tiled_slide):
    shapes = [Rectangle(200, 300, 1000, 800), Ellipse(1500, 1200, 900, 1100)]
    with open_slide(tiled_slide(size_px=(2600, 2500), mpp=2.0, tissue=shapes)) as slide:
        tissue = find_tissue(slide)
    truth = np.zeros((2500, 2600), dtype=bool)
    truth[300:1100, 200:1200] = True
    y, x = np.mgrid[:2500, :2600]
    truth |= ((x - 1950) / 450) ** 2 + ((y - 1750) / 550) ** 2 <= 1
    found = np.kron(tissue.mask, np.ones((4, 4), dtype=bool))[:2500, :2600]
    assert (found & truth).sum() / (found | truth).sum() > 0.95


def upper_half(pixels, mpp):
    """A segmenter for the tests: the upper half is tissue, at the mask's resolution."""
    assert pixels.dtype == np.uint8
    assert mpp == pytest.approx(8.0, rel=0.02)
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    mask[: len(mask) // 2] = True
    return mask


def a_wrong_size(pixels, mpp):
    return np.ones((3, 3), dtype=bool)


not_callable = 3


@pytest.fixture
def plugged_in(monkeypatch):
    """Return a function that installs entry points of the tissue group: name -> "module:attribute"."""

    def install(**targets):
        points = [EntryPoint(name, target, finding.PLUGIN_GROUP) for name, target in targets.items()]
        monkeypatch.setattr(finding, "entry_points", lambda *, group: points if group == "wsi_mivpg.tissue" else [])

    return install


@pytest.mark.parametrize(("method", "name"), [("otsu", TISSUE_METHOD), ("hsv", "hsv-saturation/1"), ("none", "none")])
def test_each_method_finds_the_painted_tissue_and_is_named(tiled_slide, method, name):
    with open_slide(tiled_slide(size_px=(1600, 1200), mpp=2.0, tissue=[Rectangle(200, 200, 900, 800)])) as slide:
        tissue = find_tissue(slide, method)
    assert tissue.method == name
    assert tissue.coverage(np.array([[300, 300, 600, 600]]))[0] == 1
    assert tissue.coverage(np.array([[1300, 100, 200, 900]]))[0] == (method == "none")


def test_the_default_is_the_default(tiled_slide):
    with open_slide(tiled_slide(mpp=2.0)) as slide:
        assert find_tissue(slide).method == TISSUE_METHOD


def test_a_geojson_file_is_a_method(tiled_slide, tmp_path):
    file = tmp_path / "drawn.GeoJSON"
    file.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [800, 0], [800, 1200], [0, 1200], [0, 0]]]}')
    with open_slide(tiled_slide(size_px=(1600, 1200), mpp=2.0)) as slide:
        for method in (file, str(file)):
            tissue = find_tissue(slide, method)
            assert tissue.method == "geojson:drawn.GeoJSON"
            assert tissue.mask.shape == find_tissue(slide, "none").mask.shape
            assert tissue.coverage(np.array([[0, 0, 800, 1200], [800, 0, 800, 1200]])).tolist() == [1, 0]


def test_a_segmenter_is_plugged_in_by_name(tiled_slide, plugged_in):
    plugged_in(upper=f"{__name__}:upper_half", broken="no_such_module_at_all:find")
    with open_slide(tiled_slide(size_px=(1600, 1200), mpp=2.0)) as slide:
        tissue = find_tissue(slide, "upper")
    assert isinstance(tissue, TissueMask)
    assert tissue.method == "plugin:upper"
    assert tissue.coverage(np.array([[0, 0, 1600, 600], [0, 600, 1600, 600]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module_at_all:find", "cannot be loaded"),
        ("numpy:no_such_attribute", "cannot be loaded"),
        (f"{__name__}:not_callable", "not callable"),
        (f"{__name__}:a_wrong_size", r"bool\[3, 3\] for a thumbnail of"),
    ],
)
def test_a_segmenter_that_fails_is_named(tiled_slide, plugged_in, target, message):
    plugged_in(mine=target)
    with open_slide(tiled_slide(mpp=2.0)) as slide, pytest.raises(TissueError, match=message) as caught:
        find_tissue(slide, "mine")
    assert "'mine'" in str(caught.value)


def test_an_unknown_method_lists_what_there_is(tiled_slide, plugged_in):
    plugged_in(upper=f"{__name__}:upper_half")
    message = "no tissue method 'clam'; choose one of: otsu, hsv, none, upper, or a FILE.geojson"
    with open_slide(tiled_slide(mpp=2.0)) as slide, pytest.raises(TissueError, match=message):
        find_tissue(slide, "clam")


def test_ellipses_of_a_slide_are_kept_by_every_colour_method(tiled_slide):
    with open_slide(tiled_slide(size_px=(2000, 1600), mpp=2.0, tissue=[Ellipse(400, 400, 800, 600)])) as slide:
        areas = [find_tissue(slide, method).tissue_mm2 for method in ("otsu", "hsv")]
    assert areas == pytest.approx([np.pi * 0.8 * 0.6] * 2, rel=0.05)
