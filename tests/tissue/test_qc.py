"""The QC picture shows the outline where the mask ends and the grid where the tiles are."""

import numpy as np

from wsi_mivpg.tissue import TissueMask, qc_image

GREEN, ORANGE = (0, 200, 0), (255, 140, 0)


def is_colour(image, colour):
    return (image == np.array(colour, dtype=np.uint8)).all(axis=2)


def test_outline_and_grid_are_drawn_where_they_are():
    mask = np.zeros((50, 100), dtype=bool)
    mask[10:40, 20:80] = True
    thumbnail = np.full((200, 400, 3), 240, dtype=np.uint8)
    before = thumbnail.copy()
    image = qc_image(thumbnail, TissueMask(mask, (8000, 4000), 1.0), np.array([[2400.0, 1600.0, 800.0, 800.0]]))
    assert image.dtype == np.uint8
    assert image.shape == thumbnail.shape
    assert np.array_equal(thumbnail, before)
    rows, columns = np.nonzero(is_colour(image, GREEN))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 159, 80, 319)
    assert not is_colour(image, GREEN)[44:156, 84:316].any()
    rows, columns = np.nonzero(is_colour(image, ORANGE))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 119, 120, 159)


def test_tissue_up_to_the_edge_keeps_its_outline_on_the_picture():
    image = qc_image(np.full((40, 60, 3), 240, dtype=np.uint8), TissueMask(np.ones((20, 30), bool), (600, 400), 1.0))
    outline = is_colour(image, GREEN)
    assert outline[[0, -1]].all()
    assert outline[:, [0, -1]].all()
    assert not outline[1:-1, 1:-1].any()


def test_a_blank_mask_without_tiles_leaves_the_picture():
    thumbnail = np.random.default_rng(0).integers(0, 255, size=(30, 40, 3), dtype=np.uint8)
    image = qc_image(thumbnail, TissueMask(np.zeros((15, 20), bool), (400, 300), 1.0), np.empty((0, 4)))
    assert np.array_equal(image, thumbnail)
