"""A picture for the eye: the thumbnail with the tissue's outline and the grid of tiles.

It draws what it is given; it finds nothing.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from wsi_mivpg.tissue.mask import TissueMask

_OUTLINE_RGB, _GRID_RGB, _BLURRED_RGB = (0, 200, 0), (255, 140, 0), (200, 0, 200)
_OUTLINE_PER_SIDE = 500


def qc_image(
    thumbnail: npt.NDArray[np.uint8], mask: TissueMask, boxes: npt.NDArray[np.float64] | Sequence[Sequence[float]] = ()
) -> npt.NDArray[np.uint8]:
    """Draw the outline of the tissue, of tissue dropped as out of focus, and the tiles over a thumbnail.

    Args:
        thumbnail: uint8[H, W, 3] RGB, the whole slide at any size.
        mask: the slide's tissue.
        boxes: (N, 4) level-0 px (x, y, width, height).

    Returns:
        uint8[H, W, 3], a new image.
    """
    height, width = thumbnail.shape[:2]
    scale = np.array([width / mask.slide_size_px[0], height / mask.slide_size_px[1]])
    image = Image.fromarray(np.ascontiguousarray(thumbnail))
    draw = ImageDraw.Draw(image)
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    first = np.rint(corners[:, :2] * scale)
    # The last pixel of a box is the one before its neighbour's first; a tiny box keeps one pixel.
    last = np.maximum(np.rint((corners[:, :2] + corners[:, 2:]) * scale) - 1, first)
    for (left, top), (right, bottom) in zip(first.tolist(), last.tolist(), strict=True):
        draw.rectangle((left, top, right, bottom), outline=_GRID_RGB)
    line_px = max(1, round(max(width, height) / _OUTLINE_PER_SIDE))
    for region, colour in ((mask.blurred, _BLURRED_RGB), (mask.mask, _OUTLINE_RGB)):
        if region is not None:
            image.paste(colour, mask=_outline(region, (width, height), line_px))
    return np.asarray(image).copy()


def _outline(region: npt.NDArray[np.bool_], size_px: tuple[int, int], line_px: int) -> Image.Image:
    """Return the inner edge of a region as a picture of `size_px`, white on black."""
    inside = Image.fromarray(region).resize(size_px, Image.Resampling.NEAREST).convert("L")
    # Nothing is beyond the image, so that tissue at its edge is closed there.
    eroded = ImageOps.expand(inside, line_px).filter(ImageFilter.MinFilter(2 * line_px + 1))
    return ImageChops.subtract(inside, ImageOps.crop(eroded, line_px))
