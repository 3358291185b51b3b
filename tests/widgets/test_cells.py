import numpy as np
import pytest

from wsi_mivpg.tiling import plan_tiles
from wsi_mivpg.widgets.cells import NO_TILE, Cells, cells_of


def tile_under(cells: Cells, x: float, y: float) -> int:
    column, row = int((x - cells.origin[0]) // cells.size[0]), int((y - cells.origin[1]) // cells.size[1])
    rows, columns = cells.tiles.shape
    return int(cells.tiles[row, column]) if 0 <= row < rows and 0 <= column < columns else NO_TILE


@pytest.mark.parametrize(("slide_mpp", "stride_px"), [(0.25, 224), (0.2522, 224), (0.263, 112), (0.499, 160)])
def test_every_tiles_middle_is_in_its_own_cell_at_any_downsample_and_overlap(slide_mpp: float, stride_px: int):
    plan = plan_tiles((40_000, 30_000), slide_mpp, target_mpp=0.5, tile_px=224, stride_px=stride_px)
    kept = np.random.default_rng(0).random(len(plan)) < 0.3
    coords = plan.coords[kept]
    cells = cells_of(coords, plan.tile_size_l0)
    middles = coords + plan.tile_size_l0 / 2
    assert [tile_under(cells, *middle) for middle in middles] == list(range(len(coords)))
    assert (cells.tiles >= 0).sum() == len(coords)


def test_neighbouring_cells_meet_at_the_tiles_edges_and_what_holds_no_tile_is_empty():
    coords = np.array([[0, 0], [100, 0], [300, 0], [0, 100]])
    cells = cells_of(coords, 100.0)
    assert (cells.origin, cells.size) == ((0.0, 0.0), (100.0, 100.0))
    assert cells.tiles.tolist() == [[0, 1, NO_TILE, 2], [3, NO_TILE, NO_TILE, NO_TILE]]


def test_tiles_off_any_grid_are_found_under_all_of_their_area_but_a_sixteenth_of_their_edge():
    coords = np.array([[10, 20], [533, 207], [1291, 1000], [64, 700]])
    cells = cells_of(coords, 256.0)
    for number, (x, y) in enumerate(coords):
        for dx, dy in ((17, 17), (239, 17), (128, 128), (239, 239)):
            assert tile_under(cells, x + dx, y + dy) == number
    assert tile_under(cells, 800, 800) == NO_TILE


def test_a_map_of_a_huge_sparse_slide_stays_small():
    rng = np.random.default_rng(1)
    cells = cells_of(rng.integers(0, 2_000_000, (5000, 2)), 224.0)
    assert cells.tiles.size < 5_000_000
    assert (cells.tiles >= 0).any()


@pytest.mark.parametrize(("coords", "side"), [(np.empty((0, 2), np.int64), 224.0), (np.full((5, 2), -1), 0.0)])
def test_without_tiles_or_places_there_is_nothing_to_draw(coords: np.ndarray, side: float):
    assert cells_of(coords, side).tiles.shape == (0, 0)
