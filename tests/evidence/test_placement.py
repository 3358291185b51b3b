"""On generated slides the hot tile is drawn over the pixels that are hot, on every level and thumbnail."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsi_mivpg.evidence.heatmap import heatmap_rgba, tile_means
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tiling import TilePlan, plan_tiles

SIZE = (2403, 1797)  # no level divides it
HOT, COLD = (220, 20, 30), (20, 200, 210)
LEVEL_SIZES = (SIZE, (1201, 898), (600, 449), (149, 112))  # downsamples 2.0008 and 2.0011, 4.005 and 4.0022, 16.13 …


def planned(mpp: float, stride_px: int) -> tuple[TilePlan, int]:
    """A plan of 64-px tiles at 0.5 um/px and the number of a tile in its middle."""
    plan = plan_tiles(SIZE, mpp, target_mpp=0.5, tile_px=64, stride_px=stride_px)
    return plan, len(plan) // 2 + 5


def field_of_view(plan: TilePlan, tile: int) -> np.ndarray:
    """Where a tile truly lies, float (2, 2): low and high corner, before its corner is rounded."""
    stride_l0 = plan.stride_px * plan.target_mpp / plan.slide_mpp
    low = plan.grid[tile] * stride_l0
    return np.stack([low, low + plan.tile_size_l0])


def write_slide(path: Path, box: np.ndarray, mpp: float) -> None:
    """A lossless pyramid, hot in the box and cold elsewhere; each level shows the whole slide."""
    pixels = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:] = COLD
    (x0, y0), (x1, y1) = np.rint(box).astype(int)
    pixels[y0:y1, x0:x1] = HOT
    tags = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        for level, size in enumerate(LEVEL_SIZES):
            part = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
            by = SIZE[0] / size[0]
            resolution = (1e4 / mpp / by, 1e4 / mpp / by)
            tiff.write(part, subfiletype=int(level > 0), resolution=resolution, **tags)


def hot_shares(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each column and of each row of a picture is hot, 0..1, through the hot box's middle."""
    shares = (picture[..., 0].astype(float) - COLD[0]) / (HOT[0] - COLD[0])
    row, column = np.unravel_index(np.argmax(shares), shares.shape)
    return shares[row], shares[:, column]


@pytest.mark.parametrize(
    ("mpp", "stride_px"), [(0.25, 64), (0.2522, 64), (0.25, 32), (0.2522, 24)], ids=lambda value: str(value)
)
def test_the_hot_tile_covers_the_hot_pixels_of_every_level_and_thumbnail(tmp_path: Path, mpp: float, stride_px: int):
    plan, tile = planned(mpp, stride_px)
    weights = np.zeros(len(plan))
    weights[tile] = 1
    write_slide(tmp_path / "slide.tiff", field_of_view(plan, tile), mpp)
    with open_slide(tmp_path / "slide.tiff") as slide:
        assert slide.level_sizes_px == LEVEL_SIZES
        pictures = [slide.read_level(0, 0, level, size) for level, size in enumerate(LEVEL_SIZES)]
        pictures += [slide.thumbnail(side) for side in (1600, 333, 97)]
    for picture in pictures:
        high, wide = picture.shape[:2]
        means = tile_means(plan.coords, plan.tile_size_l0, weights, SIZE, (wide, high))
        drawn = np.nan_to_num(means) > 0
        columns, rows = drawn.any(axis=0), drawn.any(axis=1)
        np.testing.assert_array_equal(drawn, rows[:, None] & columns)
        by = SIZE[0] / wide
        # A pixel is the tile's if its centre is, that is if half of it is hot; the slide's pixels round its edges.
        slack = 0.02 if by == 1 else 0.55 / by + 0.02
        for of_tile, share in zip((columns, rows), hot_shares(picture), strict=True):
            assert of_tile[share > 0.5 + slack].all()
            assert not of_tile[share < 0.5 - slack].any()


def test_a_map_has_a_pixel_wherever_a_tile_lies_and_nothing_beside(tmp_path: Path):
    plan, _ = planned(0.2522, 24)
    for wide, high in (SIZE, (601, 449), (97, 73)):
        image = heatmap_rgba(plan.coords, plan.tile_size_l0, np.ones(len(plan)), SIZE, (wide, high))
        end = (plan.coords.max(axis=0) + plan.tile_size_l0) * [wide / SIZE[0], high / SIZE[1]]
        covered = (np.arange(wide) + 0.5 < end[0]) & (np.arange(high) + 0.5 < end[1])[:, None]
        np.testing.assert_array_equal(image[..., 3] == 255, covered)
