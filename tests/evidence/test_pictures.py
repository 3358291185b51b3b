"""What a figure shows is what its map says: colours, contour, numbers, and the slide below."""

import numpy as np
import pytest

from wsi_mivpg.evidence.geojson import BETTER_THAN_RANDOM, Target
from wsi_mivpg.evidence.heatmap import colours, rank_scaled, raw_scaled, top_decile
from wsi_mivpg.evidence.pictures import figure, overlay, size_within
from wsi_mivpg.evidence.slide_tiles import SlideTiles

CELLS = np.array([(column, row) for row in range(4) for column in range(5)])
WEIGHTS = np.linspace(-1, 4, 30).astype(np.float32)  # the second slide's ten tiles weigh most
SLIDES = (
    SlideTiles("one", 0, CELLS * 100, 100.0, (1000, 500)),
    SlideTiles("two", 20, CELLS[:10] * 100, 100.0, (1000, 500)),
)
TARGET = Target("Sentence 1", "Invasive carcinoma. " * 12, WEIGHTS)


def centre(picture: np.ndarray, cell: tuple[int, int], by: float = 10) -> tuple[int, ...]:
    column, row = cell
    return tuple(picture[int((row + 0.5) * 100 / by), int((column + 0.5) * 100 / by)].tolist())


def test_weights_below_zero_look_like_zero_on_the_raw_scale_and_are_told_apart_by_rank():
    assert raw_scaled(np.array([-3.0, 0.0, 1.0, 4.0])).tolist() == [0, 0, 0.25, 1]
    assert raw_scaled(np.array([-3.0, -1.0])).tolist() == [0, 0]
    assert rank_scaled(np.array([-3.0, -1.0, 1.0])).tolist() == [0, 0.5, 1]


def test_a_case_has_one_scale_for_all_its_slides():
    for scale, shares in (("rank", rank_scaled(WEIGHTS)), ("raw", raw_scaled(WEIGHTS))):
        for slide in SLIDES:
            drawn = overlay(slide, WEIGHTS, scale, (100, 50))
            for tile, cell in enumerate(CELLS[: len(slide)]):
                expected = colours(shares[slide.first + tile : slide.first + tile + 1])[0]
                assert centre(drawn, tuple(cell)) == tuple(expected.tolist())
            assert drawn[:, 50:, 3].max() == 0  # no tile


def test_the_top_tenth_is_a_tenth_of_the_case_and_at_least_one_tile():
    assert top_decile(WEIGHTS).nonzero()[0].tolist() == [27, 28, 29]
    assert top_decile(np.ones(4)).tolist() == [True, False, False, False]


@pytest.mark.parametrize("scale", ["rank", "raw"])
def test_a_figure_shows_the_slide_where_no_tile_is_and_the_contour_round_the_top_tenth(scale):
    background = np.full((250, 500, 3), (10, 200, 30), np.uint8)
    drawn = figure(SLIDES[1], TARGET, "gradient", scale, background)
    assert drawn.shape[1] == 640
    assert drawn.shape[0] > 250
    rows = np.flatnonzero((drawn[:, 499] == (10, 200, 30)).all(axis=1))
    assert len(rows) == 250  # the slide, whole
    slide = drawn[rows[0] : rows[0] + 250, :500]
    assert (slide[100:, :] == (10, 200, 30)).all()
    # Tiles 27 to 29 are the last three of the second row: 50 px each, from x 100 to 250, y 50 to 100.
    edge = (slide == 255).all(axis=2)
    expected = np.zeros((250, 500), bool)
    expected[50:100, 100:250] = True
    expected[51:99, 101:249] = False
    np.testing.assert_array_equal(edge, expected)


def test_a_figure_says_more_of_signed_weights_and_fits_any_text_and_slide():
    white = np.full((20, 30, 3), 255, np.uint8)
    signed = figure(SLIDES[0], TARGET, "gradient", "raw", white)
    plain = figure(SLIDES[0], Target("Report", "Short.", np.abs(WEIGHTS)), "attention", "raw", white)
    assert signed.shape[0] > plain.shape[0]
    assert signed.shape[1] == plain.shape[1] == 640


def test_a_word_that_is_longer_than_a_line_is_broken_and_not_cut_off():
    white = np.full((20, 30, 3), 255, np.uint8)
    short = figure(SLIDES[0], Target("Report", "W", WEIGHTS), "gradient", "rank", white)
    drawn = figure(SLIDES[0], Target("Report", "W" * 150, WEIGHTS), "gradient", "rank", white)
    assert drawn.shape[0] > short.shape[0] + 40
    assert (drawn[:, -12:] == 255).all()


def test_a_figure_of_a_map_that_is_no_better_than_random_says_so():
    white = np.full((20, 30, 3), 255, np.uint8)
    lines = [
        figure(SLIDES[0], Target("Report", "W", WEIGHTS, figures), "gradient", "rank", white).shape[0]
        for figures in ({}, {BETTER_THAN_RANDOM: 1}, {BETTER_THAN_RANDOM: 0})
    ]
    assert lines[0] == lines[1]
    assert lines[2] == lines[0] + 20


def test_sizes_keep_a_slides_shape_and_are_those_of_its_thumbnail():
    assert size_within(SLIDES[0], 400) == (400, 200)
    assert size_within(SLIDES[0], 4000) == (1000, 500)
    unknown = SlideTiles("x", 0, CELLS * 100, 100.5, None)
    assert size_within(unknown, 4000) == (501, 401)
