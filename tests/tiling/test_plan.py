"""Tile plans: no overlap, no gap, and never more than a level-0 pixel off, whatever the resolution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mivpg.errors import ResolutionError
from wsi_mivpg.tiling import plan_tiles

odd_mpps = [0.2528, 0.2630, 0.26301, 0.499, 0.5 / 2.0005, 0.5 / 4.0007]
slide_mpps = st.one_of(st.sampled_from(odd_mpps), st.floats(0.1, 0.5))
sides = st.integers(1, 60_000)


@settings(max_examples=150)
@given(mpp=slide_mpps, width=sides, height=st.integers(1, 4000), tile_px=st.sampled_from([224, 256, 512]))
def test_tiles_meet_without_gap_or_overlap_and_stay_inside(mpp, width, height, tile_px):
    plan = plan_tiles((width, height), mpp, target_mpp=0.5, tile_px=tile_px)
    side = plan.tile_size_l0
    assert side == pytest.approx(tile_px * 0.5 / mpp)
    # Each tile lies within half a pixel of its true place, so neighbours' edges meet within one pixel.
    assert np.abs(plan.coords - plan.grid * side).max(initial=0) <= 0.5 + 1e-6
    assert (plan.coords + side <= np.array([width, height]) + 1e-5).all()
    for axis in (0, 1):
        starts = np.unique(plan.coords[:, axis])
        assert np.abs(np.diff(starts) - side).max(initial=0) <= 1
        numbers = np.unique(plan.grid[:, axis])
        assert np.array_equal(numbers, np.arange(len(numbers)))
    # What is left at the right and bottom edge is smaller than a tile.
    columns, rows = plan.grid.max(axis=0, initial=-1) + 1
    assert len(plan) == columns * rows
    if len(plan):
        assert width - columns * side < side + 1
        assert height - rows * side < side + 1
    else:
        assert min(width, height) < side + 1


@settings(max_examples=60)
@given(mpp=slide_mpps)
def test_rounding_never_accumulates_over_the_widest_slide(mpp):
    plan = plan_tiles((200_000, 1500), mpp, target_mpp=0.5, tile_px=224)
    last = plan.coords[-1, 0]
    assert abs(last - plan.grid[-1, 0] * 224 * 0.5 / mpp) <= 0.5 + 1e-6


def test_coverage_selects_tiles_and_fractions_stay_aligned():
    def left_half(boxes):
        return np.where(boxes[:, 0] < 1000, 0.6, 0.1).astype(np.float32)

    plan = plan_tiles((2240, 2240), 0.5, target_mpp=0.5, tile_px=224, coverage=left_half, min_tissue=0.25)
    assert len(plan) == 50
    assert (plan.coords[:, 0] < 1000).all()
    assert (plan.tissue_fraction == np.float32(0.6)).all()
    assert plan.coords.dtype == np.int64
    assert plan.grid.dtype == np.int32


def test_order_is_row_by_row():
    plan = plan_tiles((500, 500), 0.5, target_mpp=0.5, tile_px=224)
    assert plan.coords.tolist() == [[0, 0], [224, 0], [0, 224], [224, 224]]


def test_a_slide_smaller_than_a_tile_gives_an_empty_plan():
    plan = plan_tiles((100, 5000), 0.5, target_mpp=0.5, tile_px=224)
    assert plan.coords.shape == (0, 2)
    assert plan.tissue_fraction.shape == (0,)


def test_upsampling_is_refused_but_one_percent_is_not():
    with pytest.raises(ResolutionError, match="1 microns per pixel"):
        plan_tiles((5000, 5000), 1.0, target_mpp=0.5, tile_px=224)
    assert len(plan_tiles((5000, 5000), 0.504, target_mpp=0.5, tile_px=224)) > 0


@settings(max_examples=100)
@given(mpp=slide_mpps, width=st.integers(1, 5000), height=st.integers(1, 5000), stride_px=st.integers(40, 224))
def test_padded_tiles_cover_every_pixel_and_none_is_needless(mpp, width, height, stride_px):
    plan = plan_tiles((width, height), mpp, target_mpp=0.5, tile_px=224, stride_px=stride_px, edge="pad")
    side = plan.tile_size_l0
    for axis, length in ((0, width), (1, height)):
        starts = np.unique(plan.coords[:, axis])
        assert starts[0] == 0
        assert starts[-1] + side >= length - 1e-6
        assert (starts[1:] <= starts[:-1] + side + 1).all()
        assert len(starts) == 1 or starts[-2] + side < length
        assert (starts < length).all()


def test_stride_sets_how_far_tiles_are_apart():
    plan = plan_tiles((1000, 500), 0.25, target_mpp=0.5, tile_px=100, stride_px=50)
    assert np.unique(plan.coords[:, 0]).tolist() == list(range(0, 801, 100))
    assert len({tuple(corner) for corner in plan.coords.tolist()}) == len(plan)
    with pytest.raises(ValueError, match="at least 1"):
        plan_tiles((1000, 500), 0.25, target_mpp=0.5, tile_px=100, stride_px=0)


def test_plans_are_equal_by_content_and_cannot_be_changed():
    def plan(**changes):
        return plan_tiles((3000, 2000), 0.25, **{"target_mpp": 0.5, "tile_px": 224, **changes})

    assert plan() == plan()
    assert len({plan(), plan(), plan(tile_px=256), plan(min_tissue=0.5), plan(edge="pad")}) == 4
    with pytest.raises(ValueError, match="read-only"):
        plan().coords[0, 0] = 1


def test_a_million_tiles_are_planned():
    plan = plan_tiles((300_000, 200_000), 0.25, target_mpp=0.25, tile_px=240)
    assert len(plan) == 1250 * 833
