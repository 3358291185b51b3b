"""The mask over a slide: coverage equals counting, outlines are closed and in level-0 pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mivpg.tissue import TissueMask


@settings(max_examples=60)
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
