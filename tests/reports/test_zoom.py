import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.reports.pages import MPP, SLIDE_PX, STRIPES, TILES, levels, read_region
from wsi_mivpg.errors import SlideError
from wsi_mivpg.reports import ZoomLevel, zoom_levels
from wsi_mivpg.reports.zoom import TILE_PX

THUMBNAIL = read_region(0, 0, (400, 300), MPP * 8)


def picture(level: ZoomLevel) -> np.ndarray:
    """Return a level's tiles side by side, uint8 (h, w, 3); black where there is none."""
    width, height = (round(side / level.downsample) for side in SLIDE_PX)
    whole = np.zeros((height, width, 3), np.uint8)
    for (column, row), jpeg in level.tiles.items():
        tile = np.asarray(Image.open(io.BytesIO(jpeg)))
        whole[row * TILE_PX :, column * TILE_PX :][: tile.shape[0], : tile.shape[1]] = tile
    return whole


def test_levels_double_from_the_overview_to_level_0_and_show_everything_in_its_place():
    found = levels()
    assert [level.downsample for level in found] == [4, 2, 1]
    for level in found:
        width, height = (round(side / level.downsample) for side in SLIDE_PX)
        truth = read_region(0, 0, (width, height), MPP * level.downsample)
        far = cv2.absdiff(picture(level), truth).max(axis=2) > 40
        assert far.mean() < 0.01  # JPEG at hard edges
    columns, rows = STRIPES
    stripes = picture(found[-1])[rows.start + 8 : rows.stop - 8, columns.start + 8 : columns.stop - 8]
    assert np.ptp(stripes.mean(axis=(0, 2))) > 150


def test_a_level_that_does_not_fit_is_left_out_whole_and_the_bytes_are_never_more():
    everything = levels()
    size = [sum(map(len, level.tiles.values())) for level in everything]
    for budget, expected in ((sum(size), 3), (sum(size) - 1, 2), (size[0], 1), (size[0] - 1, 0), (0, 0)):
        found = zoom_levels(read_region, SLIDE_PX, MPP, THUMBNAIL, budget_bytes=budget)
        assert len(found) == expected, budget
        assert all(set(level.tiles) == set(full.tiles) for level, full in zip(found, everything, strict=False))


def test_only_tiles_with_tissue_are_kept_and_holes_are_not_tissue():
    outer = np.array([[0, 0], [3200, 0], [3200, 1200], [0, 1200], [0, 0]], float)
    hole = np.array([[1000, 300], [2200, 300], [2200, 1100], [1000, 1100], [1000, 300]], float)
    speck = np.array([[3000, 2200], [3010, 2200], [3010, 2210], [3000, 2200]], float)
    finest = zoom_levels(read_region, SLIDE_PX, MPP, THUMBNAIL, [outer, hole, speck])[-1]
    kept = np.zeros((10, 13), bool)
    for column, row in finest.tiles:
        kept[row, column] = True
    assert kept[:4, :3].all()
    assert kept[:4, 9:].all()
    assert not kept[2:4, 5:8].any()
    assert [tuple(place) for place in np.argwhere(kept[5:]).tolist()] == [(3, 11)]


def test_what_cannot_be_decoded_is_left_to_the_level_before():
    def damaged(x: float, y: float, size_px: int | tuple[int, int], mpp: float) -> np.ndarray:
        if x == TILE_PX and y == 0:
            raise SlideError("tile (1, 0) cannot be decoded")
        return read_region(x, y, size_px, mpp)

    finest = zoom_levels(damaged, SLIDE_PX, MPP, THUMBNAIL)[-1]
    assert (1, 0) not in finest.tiles
    assert len(finest.tiles) == 13 * 10 - 1


@pytest.mark.parametrize("size_px", [(1, 1), (40, 4000), (5000, 17), (3201, 2399)])
def test_tiny_tall_wide_and_odd_slides_are_covered(size_px: tuple[int, int]):
    scale = max(1.0, max(size_px) / 300)
    thumbnail = np.zeros((max(1, round(size_px[1] / scale)), max(1, round(size_px[0] / scale)), 3), np.uint8)
    for level in zoom_levels(read_region, size_px, MPP, thumbnail):
        assert level.downsample >= 1
        sizes = {place: Image.open(io.BytesIO(jpeg)).size for place, jpeg in level.tiles.items()}
        width = sum(size[0] for (_, row), size in sizes.items() if row == 0)
        height = sum(size[1] for (column, _), size in sizes.items() if column == 0)
        assert 0 <= width - size_px[0] / level.downsample < 1
        assert 0 <= height - size_px[1] / level.downsample < 1


def test_the_slide_of_these_tests_is_what_it_says():
    x, y = next(iter(TILES))
    assert (read_region(x, y, 400, MPP) == TILES[x, y]).all()
