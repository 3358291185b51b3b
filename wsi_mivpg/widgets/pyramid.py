"""A slide as the pyramid of square JPEG tiles that a deep-zoom viewer asks for.

Level `last` is the slide itself and each level below has half its resolution, down to one tile. Pixels come from
`Slide.read_region`; which tiles are wanted, and when, is the viewer's matter.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import simplejpeg

from wsi_mivpg.slides import Slide

TILE_PX = 512
_QUALITY = 85
_CACHED_TILES = 384  # about 40 MB of tissue


class SlidePyramid:
    """JPEG tiles of one slide, the latest of them kept; reading is safe from several threads.

    Attributes:
        slide: the open slide; it stays the caller's to close.
        last: the finest level, which is level 0 of the slide.
    """

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.last = last_level(slide.size_px)
        self.tile: Callable[[int, int, int], bytes] = lru_cache(maxsize=_CACHED_TILES)(self._encoded)

    def _encoded(self, level: int, column: int, row: int) -> bytes:
        """Return the tile (column, row) of a level as JPEG; tiles at the right and lower edge are smaller.

        Raises:
            LookupError: there is no such tile.
            SlideError: its pixels cannot be decoded.
        """
        if not 0 <= level <= self.last:
            raise LookupError(f"the slide has levels 0 to {self.last}, not {level}")
        scale = 2 ** (self.last - level)
        left, top = column * TILE_PX, row * TILE_PX
        width, height = (-(-side // scale) for side in self.slide.size_px)
        if not (0 <= left < width and 0 <= top < height):
            raise LookupError(f"level {level} has no tile ({column}, {row})")
        size_px = (min(TILE_PX, width - left), min(TILE_PX, height - top))
        pixels = self.slide.read_region(left * scale, top * scale, size_px, self.slide.mpp * scale)
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=_QUALITY, colorsubsampling="420"))


def last_level(size_px: tuple[int, int]) -> int:
    """Return the number of halvings after which a slide of `size_px` (width, height) fits into one tile."""
    return max(0, -(-max(size_px) // TILE_PX) - 1).bit_length()
