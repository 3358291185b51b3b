import io

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TiledSlide
from wsi_mivpg.slides import open_slide
from wsi_mivpg.widgets.pyramid import TILE_PX, SlidePyramid, last_level


def decoded(tile: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tile)), np.float64)


@pytest.mark.parametrize(
    ("size_px", "level"), [((1, 1), 0), ((512, 512), 0), ((513, 10), 1), ((1024, 1024), 1), ((100_000, 80_000), 8)]
)
def test_the_coarsest_level_is_one_tile(size_px: tuple[int, int], level: int):
    assert last_level(size_px) == level
    assert max(size_px) / 2**level <= TILE_PX


def test_tiles_of_a_level_laid_side_by_side_are_the_slide_at_that_resolution(tiled_slide: TiledSlide):
    with open_slide(tiled_slide(size_px=(1500, 1200))) as slide:
        pyramid = SlidePyramid(slide)
        assert pyramid.last == 2
        for level, (columns, rows) in ((2, (3, 3)), (1, (2, 2)), (0, (1, 1))):
            lines = [[decoded(pyramid.tile(level, column, row)) for column in range(columns)] for row in range(rows)]
            whole = np.concatenate([np.concatenate(line, axis=1) for line in lines])
            scale = 2 ** (2 - level)
            wanted = slide.read_region(0, 0, (-(-1500 // scale), -(-1200 // scale)), slide.mpp * scale)
            assert whole.shape == wanted.shape
            assert np.abs(whole - wanted).mean() < 3  # what JPEG changes


def test_a_tile_that_is_not_there_is_refused(tiled_slide: TiledSlide):
    with open_slide(tiled_slide()) as slide:
        pyramid = SlidePyramid(slide)
        for level, column, row in ((3, 0, 0), (2, 3, 0), (0, 0, 1)):
            with pytest.raises(LookupError):
                pyramid.tile(level, column, row)


def test_a_tile_asked_for_again_is_not_read_again(tiled_slide: TiledSlide):
    with open_slide(tiled_slide()) as slide:
        pyramid = SlidePyramid(slide)
        first = pyramid.tile(1, 0, 0)
        slide.close()
        assert pyramid.tile(1, 0, 0) is first
