"""The outline of tiles encloses exactly these tiles, in rings that any reader of GeoJSON takes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_mivpg.evidence.outline import outline, signed_area
from wsi_mivpg.tissue.geojson import mask_of

SIDE = 224 * 0.5 / 0.2522


def rasterised(polygons: list, size_px: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """What the tissue room's reader, which knows nothing of tiles, makes of them."""
    coordinates = [[ring.tolist() for ring in polygon] for polygon in polygons]
    return mask_of({"type": "MultiPolygon", "coordinates": coordinates}, "outline", size_px, shape)


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_outlines_of_any_tiles_on_a_grid_enclose_them_and_nothing_else(cells: np.ndarray):
    rows, columns = np.nonzero(cells)
    polygons = outline(np.rint(np.stack([columns, rows], 1) * SIDE).astype(np.int64), SIDE)
    areas = [signed_area(ring) for polygon in polygons for ring in polygon]
    assert np.isclose(sum(areas), cells.sum() * SIDE**2)
    for polygon in polygons:
        assert [signed_area(ring) > 0 for ring in polygon] == [True] + [False] * (len(polygon) - 1)
        for ring in polygon:
            assert (ring[0] == ring[-1]).all()
            assert len(ring) >= 5
            assert len(np.unique(ring[:-1].round(6), axis=0)) == len(ring) - 1  # it never meets itself
    if polygons:
        high, wide = cells.shape
        scaled = [[ring / SIDE * 100 for ring in polygon] for polygon in polygons]
        drawn = rasterised(scaled, (wide * 100, high * 100), (high * 4, wide * 4))
        np.testing.assert_array_equal(drawn, cells.repeat(4, 0).repeat(4, 1))


def test_tiles_in_a_ring_that_touches_itself_at_a_corner_are_one_piece_with_a_hole():
    cells = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    rows, columns = np.nonzero(cells)
    (polygon,) = outline(np.stack([columns, rows], 1) * 10, 10.0)
    assert [signed_area(ring) for ring in polygon] == [800.0, -100.0]


def test_overlapping_tiles_and_corners_rounded_to_pixels_leave_no_slivers():
    stride = SIDE / 2
    cells = np.array([(c, r) for r in range(9) for c in range(11)])
    (polygon,) = outline(np.rint(cells * stride).astype(np.int64), SIDE)
    (ring,) = polygon
    assert len(ring) == 5
    assert abs(signed_area(ring) - (12 * stride) * (10 * stride)) < SIDE * 11  # half a pixel all round


def test_tiles_that_lie_in_no_grid_are_enclosed_too():
    coords = np.random.default_rng(0).integers(0, 30_000, (1500, 2))
    polygons = outline(coords, 448.0)
    drawn = rasterised(polygons, (31_000, 31_000), (310, 310))
    centres = (np.arange(310) + 0.5) * 100
    truth = np.zeros((310, 310), bool)
    for x, y in coords:
        inside_x, inside_y = [(centres > at + 16) & (centres < at + 432) for at in (x, y)]
        truth |= inside_y[:, None] & inside_x
    assert drawn[truth].all()
    assert drawn.mean() < 1.1 * truth.mean() + 0.05


def test_no_tiles_have_no_outline():
    assert outline(np.empty((0, 2), np.int64), 448.0) == []
