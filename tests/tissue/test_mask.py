"""Tissue: blank glass is empty, pale tissue is kept, lumens are filled, coverage equals counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Ellipse, Rectangle
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tissue import TissueMask, find_tissue
from wsi_mivpg.tissue.mask import tissue_of


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


@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 242, 244), (238, 232, 228)])
def test_a_blank_slide_is_empty(glass):
    noise = np.random.default_rng(0).normal(0, 4, size=(300, 400, 3))
    pixels = np.clip(np.array(glass) + noise, 0, 255).astype(np.uint8)
    assert not tissue_of(pixels, 8.0).any()


def test_pale_tissue_beside_dark_tissue_is_kept():
    pixels = np.full((300, 400, 3), 245, dtype=np.uint8)
    pixels[50:150, 50:150] = (120, 50, 130)
    pixels[50:150, 220:320] = (232, 205, 222)
    mask = tissue_of(pixels, 8.0)
    assert mask[60:140, 60:140].all()
    assert mask[60:140, 230:310].all()
    assert not mask[200:].any()


def test_a_field_full_of_tissue_is_all_tissue():
    noise = np.random.default_rng(0).normal(0, 8, size=(300, 400, 1))
    pixels = np.clip(np.array((205, 140, 185)) + noise, 0, 255).astype(np.uint8)
    assert tissue_of(pixels, 8.0).mean() > 0.99


def test_lumens_are_filled_and_specks_dropped():
    pixels = np.full((300, 300, 3), 245, dtype=np.uint8)
    pixels[50:250, 50:250] = (190, 110, 160)
    pixels[130:150, 130:150] = 245
    pixels[10:14, 10:14] = (190, 110, 160)
    mask = tissue_of(pixels, 8.0)
    assert mask[130:150, 130:150].all()
    assert not mask[5:20, 5:20].any()


def test_glass_in_a_corner_is_not_a_hole():
    pixels = np.full((100, 100, 3), (190, 110, 160), dtype=np.uint8)
    pixels[:30, 70:] = 245
    mask = tissue_of(pixels, 8.0)
    assert not mask[:20, 80:].any()
    assert mask[40:].all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    box=st.tuples(st.integers(-5, 30), st.integers(-5, 30), st.integers(1, 20), st.integers(1, 20)),
)
def test_coverage_equals_counting_pixels(seed, box):
    mask = np.random.default_rng(seed).random((25, 30)) > 0.5
    tissue = TissueMask(mask, (300, 250), 0.5)
    x, y, width, height = box
    padded = np.pad(mask, 40)
    expected = padded[40 + y : 40 + y + height, 40 + x : 40 + x + width].mean()
    found = tissue.coverage(np.array([box], dtype=float) * 10)
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_coverage_of_no_boxes_is_empty():
    assert TissueMask(np.ones((4, 4), dtype=bool), (40, 40), 0.5).coverage(np.empty((0, 4))).shape == (0,)


def test_outlines_are_closed_and_in_level_zero_pixels():
    mask = np.zeros((50, 60), dtype=bool)
    mask[10:40, 20:50] = True
    mask[20:30, 30:40] = False
    tissue = TissueMask(mask, (600, 500), 0.5)
    outlines = tissue.polygons()
    assert len(outlines) == 2
    assert all(np.array_equal(line[0], line[-1]) for line in outlines)
    outer = max(outlines, key=lambda line: np.ptp(line[:, 0]))
    assert np.allclose(outer.min(axis=0), (200, 100), atol=6)
    assert np.allclose(outer.max(axis=0), (500, 400), atol=6)
    (feature,) = tissue.to_geojson()["features"]
    assert len(feature["geometry"]["coordinates"]) == 2


def test_a_real_slide_keeps_its_tissue(shared_data):
    with open_slide(shared_data / "slides" / "metaplasia_HE.tiff") as slide:
        tissue = find_tissue(slide)
    assert tissue.mpp_x == pytest.approx(8.0, rel=0.01)
    assert 0.1 < tissue.mask.mean() < 0.9
