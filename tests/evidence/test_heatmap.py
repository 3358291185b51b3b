import numpy as np
import pytest

from wsi_mivpg.evidence import attention_rgba, attention_share_of_top, rank_scaled, top_tiles
from wsi_mivpg.evidence.heatmap import tile_means

STRIDE = 224 * 0.5 / 0.2522


def grid(columns: int, rows: int) -> np.ndarray:
    cells = np.array([(c, r) for r in range(rows) for c in range(columns)])
    return np.rint(cells * STRIDE).astype(np.int64)


def test_neighbouring_tiles_share_their_rounded_edge_without_gap_or_overlap():
    coords = grid(30, 20)
    size = (int(30 * STRIDE) + 1, int(20 * STRIDE) + 1)
    for out in ((301, 203), (97, 61), (640, 427)):
        image = attention_rgba(coords, STRIDE, np.arange(600.0), size, out)
        assert (image[..., 3] == 255).all()


def test_a_tile_lies_where_it_belongs_and_the_rest_is_transparent():
    image = attention_rgba(np.array([[200, 100]]), 100.0, np.array([1.0]), (1000, 500), (100, 50))
    assert image.shape == (50, 100, 4)
    rows, columns = np.nonzero(image[..., 3])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (20, 29, 10, 19)


def test_a_tile_thinner_than_a_pixel_is_still_seen_in_the_pixel_that_it_lies_in():
    image = attention_rgba(np.array([[566, 510]]), 1.0, np.array([0.9]), (1000, 1000), (10, 10))
    assert np.argwhere(image[..., 3]).tolist() == [[5, 5]]


def test_where_tiles_overlap_a_pixel_shows_their_mean():
    coords = np.array([[0, 0], [50, 0], [500, 500], [501, 500]])  # half over each other; both within one pixel
    shares = np.array([0.2, 0.6, 0.0, 1.0])
    means = tile_means(coords, 100.0, shares, (1000, 1000), (20, 20))
    np.testing.assert_allclose(means[0, :4], [0.2, 0.4, 0.6, np.nan])
    thin = tile_means(coords, 1.0, shares, (1000, 1000), (10, 10))
    assert thin[5, 5] == 0.5


def test_no_tiles_give_an_empty_image():
    image = attention_rgba(np.empty((0, 2), np.int64), 448.0, np.empty(0), (1000, 500), (10, 5))
    assert not image.any()


def test_a_wrong_number_of_weights_and_weights_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="2 tiles but weights"):
        attention_rgba(grid(2, 1), STRIDE, np.ones(3), (1000, 500), (10, 5))
    with pytest.raises(ValueError, match="finite"):
        attention_rgba(grid(2, 1), STRIDE, np.array([1, np.nan]), (1000, 500), (10, 5))


def test_ranks_share_ties_and_even_attention_is_the_middle():
    np.testing.assert_allclose(rank_scaled(np.array([5.0, 1.0, 1.0, 9.0])), [2 / 3, 1 / 6, 1 / 6, 1.0])
    np.testing.assert_array_equal(rank_scaled(np.ones(4)), np.full(4, 0.5))
    assert rank_scaled(np.empty(0)).shape == (0,)


def test_share_of_the_top_tenth_tells_even_from_uneven_attention():
    assert attention_share_of_top(np.ones(100)) == pytest.approx(0.1)
    assert attention_share_of_top(np.eye(1, 100)[0]) == 1.0
    assert attention_share_of_top(np.empty(0)) == 0.0


def test_top_tiles_come_largest_first_and_ties_by_position():
    assert top_tiles(np.array([1.0, 3.0, 3.0, 2.0]), 3).tolist() == [1, 2, 3]
    assert top_tiles(np.array([1.0]), 5).tolist() == [0]
