"""DeepZoom pyramids: `X.dzi` beside `X_files/<level>/<column>_<row>.<format>`, as libvips and web viewers write them.

Each tile is a file of its own; one that is missing is an error, never white.
"""

import hashlib
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from wsi_mivpg.slides.fingerprint import fingerprint_of
from wsi_mivpg.slides.readers.base import NotReadable, Pixels
from wsi_mivpg.slides.readers.picture import decoded_picture
from wsi_mivpg.slides.readers.safe_xml import local_name, xml_root
from wsi_mivpg.slides.readers.tile_cache import TileCache, TileKey
from wsi_mivpg.slides.readers.tile_grid import TileGrid
from wsi_mivpg.slides.readers.vips_properties import mpp_from_vips

_SMALLEST_LEVEL_PX = 256
_LARGEST_TILE_PX = 8192
# Counting uses takes four bytes a tile; real slides have a few million tiles of 254 px.
_MOST_TILES = 1 << 26
_MOST_DZI_BYTES = 1 << 20
_FINGERPRINT_TILES = 16
_IMAGE_SUFFIX = re.compile(r"[A-Za-z0-9]{1,5}")


class DeepZoomReader:
    """A DeepZoom pyramid; see `Reader` for the attributes.

    Levels go down to the first whose longer side is at most 256 px, as far as their folders are there. A level's
    size is rounded up, so its downsample is the exact power of two and not the ratio of the sizes.
    """

    name = "deepzoom"
    vendor = "unknown"
    mpp_source = "file"

    def __init__(self, path: Path) -> None:
        """Read `X.dzi`, and `X_files/vips-properties.xml` where it is there.

        Raises:
            NotReadable: not a .dzi file, a malformed one, or one without its tiles.
        """
        if path.suffix.lower() != ".dzi":
            raise NotReadable("not a .dzi file")
        self._path = path
        self._folder = path.with_name(f"{path.stem}_files")
        try:
            size_px, self._tile_px, self._overlap_px, self._suffix = _layout(xml_root(path, _MOST_DZI_BYTES))
        except (ValueError, OSError) as error:
            raise NotReadable(str(error)) from error
        # The number of DeepZoom's folder of level 0; its own level 0 is one pixel.
        self._top = (max(size_px) - 1).bit_length()
        if not self._folder.joinpath(str(self._top)).is_dir():
            raise NotReadable(f"its tiles are not at {self._folder.name}/{self._top}; copy that folder too")
        self._grids = tuple(self._levels(size_px))
        if self._grids[0].rows * self._grids[0].columns > _MOST_TILES:
            raise NotReadable(f"{size_px[0]}x{size_px[1]} px in tiles of {self._tile_px} px is more than any slide has")
        self.level_sizes_px = tuple(grid.size_px for grid in self._grids)
        self.downsamples = tuple(float(1 << level) for level in range(len(self._grids)))
        self.mpp = mpp_from_vips(self._folder / "vips-properties.xml")
        self.tiles = TileCache(self._decode)
        self._is_open = True

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
        """Return uint8[height, width, 3] of a box inside the level; transparency becomes white."""
        return self._grids[level].read(self.tiles.use, x, y, size_px, out)

    def announce(self, level: int, boxes: npt.NDArray[np.int64]) -> None:
        """Expect each box to be read once; int64 (N, 4) x, y, width, height in pixels of the level."""
        self.tiles.announce(level, self._grids[level].uses(boxes))

    def forget(self) -> None:
        """Drop what was announced and is held."""
        self.tiles.forget()

    def close(self) -> None:
        """Drop decoded tiles; reading afterwards is an error."""
        self.tiles.forget()
        self._is_open = False

    def fingerprint(self) -> str:
        """Return the sha256, in hex, of the .dzi file and of up to 16 tiles of the coarsest level.

        The .dzi alone says only how large the slide is, and many slides are equally large.
        """
        with self._path.open("rb") as stream:
            digest = hashlib.sha256(fingerprint_of(stream).encode())
        grid = self._grids[-1]
        n_tiles = grid.rows * grid.columns
        for index in range(0, n_tiles, math.ceil(n_tiles / _FINGERPRINT_TILES)):
            path = self._tile_path((grid.level, *divmod(index, grid.columns)))
            digest.update(path.read_bytes() if path.is_file() else b"missing")
        return digest.hexdigest()

    def _levels(self, size_px: tuple[int, int]) -> list[TileGrid]:
        grids = []
        for level in range(self._top + 1):
            width, height = (math.ceil(side / (1 << level)) for side in size_px)
            if not self._folder.joinpath(str(self._top - level)).is_dir():
                break
            grids.append(TileGrid(level, (width, height), (self._tile_px, self._tile_px)))
            if max(width, height) <= _SMALLEST_LEVEL_PX:
                break
        return grids

    def _tile_path(self, key: TileKey) -> Path:
        level, row, column = key
        return self._folder / str(self._top - level) / f"{column}_{row}.{self._suffix}"

    def _decode(self, key: TileKey, _buffer: Pixels | None) -> Pixels:
        """Return a tile without its overlap; ValueError names a tile that is missing, damaged or of another size."""
        if not self._is_open:
            raise ValueError("the slide is closed")
        level, row, column = key
        path = self._tile_path(key)
        tile, overlap = self._tile_px, self._overlap_px
        width, height = self._grids[level].size_px
        before_x, before_y = (overlap if index else 0 for index in (column, row))
        left, top = column * tile, row * tile
        right, bottom = (min(start + tile + overlap, end) for start, end in ((left, width), (top, height)))
        expected = (right - left + before_x, bottom - top + before_y)
        try:
            pixels = decoded_picture(path, expected[0] * expected[1])
        except FileNotFoundError as error:
            raise ValueError(f"the tile {path} is missing") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"the tile {path} cannot be read: {error}") from error
        if pixels.shape[1::-1] != expected:
            raise ValueError(
                f"the tile {path} is {pixels.shape[1]}x{pixels.shape[0]} px, not {expected[0]}x{expected[1]}"
            )
        return pixels[before_y : before_y + tile, before_x : before_x + tile]


def _layout(root: ElementTree.Element) -> tuple[tuple[int, int], int, int, str]:
    """Return (width, height), tile side and overlap in px, and the tiles' suffix; ValueError where they are wrong."""
    sizes = [child for child in root if local_name(child) == "Size"]
    if local_name(root) != "Image" or len(sizes) != 1:
        raise ValueError(f"a DeepZoom file is one <Image> with one <Size>, this is <{local_name(root)}>")
    size_px = (_whole(sizes[0], "Width", 1), _whole(sizes[0], "Height", 1))
    tile_px = _whole(root, "TileSize", 1, _LARGEST_TILE_PX)
    suffix = root.get("Format", "")
    # It becomes part of a path, so it must not lead elsewhere.
    if not _IMAGE_SUFFIX.fullmatch(suffix):
        raise ValueError(f"Format is {suffix!r}, not an image suffix such as 'jpeg'")
    return size_px, tile_px, _whole(root, "Overlap", 0, tile_px), suffix


def _whole(element: ElementTree.Element, name: str, least: int, most: int = 1 << 31) -> int:
    text = element.get(name, "")
    if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise ValueError(f"{name} is {text!r}, not a whole number from {least} to {most}")
    return int(text)
