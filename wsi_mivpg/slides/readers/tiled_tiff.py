"""Our reader of tiled TIFF and Aperio SVS: each compressed tile is read and decoded once for all reads that need it.

tifffile reads the directories and knows the codecs; tiles are read here with `pread`, in any thread.
"""

import math
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg
import tifffile

from wsi_mivpg.slides.readers.base import NotReadable, Pixels
from wsi_mivpg.slides.readers.tile_cache import TileCache, TileKey
from wsi_mivpg.slides.readers.tile_grid import TileGrid
from wsi_mivpg.slides.resolution import mpp_from_aperio, mpp_from_tiff_page

_COMPRESSIONS = frozenset({1, 5, 7, 8, 32946, 33005})
"""None, LZW, JPEG, deflate (two numbers), JPEG 2000 as RGB (Aperio).

Aperio's JPEG 2000 as YCbCr (33003), whose colour planes may be smaller, is left to OpenSlide.
"""
_JPEG = 7
_JPEG_2000 = 33005
_RGB, _YCBCR = 2, 6
# Layouts that tifffile recognises and that a plain reading of tiles would get right.
_PLAIN_LAYOUTS = frozenset({"svs", "shaped", "uniform"})
_LARGEST_TILE_PX = 8192
_REDUCTIONS = (2, 4)
# What tifffile raises for damaged directories.
_DAMAGED = (
    tifffile.TiffFileError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    struct.error,
)
_REDUCED_IMAGE = 1
_ADOBE_MARKER = b"Adobe\x00"


@dataclass(frozen=True)
class _Level:
    """One directory of the file, at full size or at what the JPEG decoder's own scaling makes of it.

    `offsets` and `byte_counts` are int64 (rows * columns of the grid,), row by row.
    """

    decode: Callable[[bytes, int, Pixels], Any]
    compression: int
    photometric: int
    grid: TileGrid
    offsets: npt.NDArray[np.int64]
    byte_counts: npt.NDArray[np.int64]


class TiledTiffReader:
    """A tiled TIFF whose layout and codecs are known; see `Reader` for its attributes.

    With `fast`, levels of a half and a quarter of a JPEG level's size are added where the file has none that is as
    fine: the decoder makes them by leaving out high frequencies, in less than half of the time.

    Attributes:
        tiles: the decoded tiles that reads share.
    """

    def __init__(self, path: Path, *, fast: bool = False) -> None:
        """Read the directories of `path`.

        Raises:
            NotReadable: not a TIFF, or one that this reader cannot be sure of.
        """
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = _pyramid(tiff)
                first = pages[0]
                is_aperio = first.description.startswith("Aperio")
                sizes = [(page.imagewidth, page.imagelength) for page in pages]
                downsamples = [_downsample(sizes[0], size, is_aperio) for size in sizes]
                layers = _layers(pages, downsamples) if fast else [(page, 1) for page in pages]
                self._levels = tuple(_level(index, *layer) for index, layer in enumerate(layers))
                self.downsamples = tuple(downsamples[pages.index(page)] * reduction for page, reduction in layers)
                self.vendor = "aperio" if is_aperio else "generic-tiff"
                self.mpp = mpp_from_aperio(first.description) if is_aperio else mpp_from_tiff_page(first)
        except _DAMAGED as error:
            raise NotReadable(str(error)) from error
        self.name = "tile-once-fast" if fast else "tile-once"
        self.mpp_source = "file" if is_aperio else "tiff tags"
        self.level_sizes_px = tuple(level.grid.size_px for level in self._levels)
        self._file = os.open(path, os.O_RDONLY)
        self._size_bytes = os.fstat(self._file).st_size
        self.tiles = TileCache(self._decode)
        try:
            self._check_first_tile()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and drop decoded tiles."""
        self.tiles.forget()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
        """Return uint8[height, width, 3] of a box inside the level; tiles that the file leaves out are white."""
        return self._levels[level].grid.read(self.tiles.use, x, y, size_px, out)

    def announce(self, level: int, boxes: npt.NDArray[np.int64]) -> None:
        """Expect each box to be read once; int64 (N, 4) x, y, width, height in pixels of the level.

        Parts of boxes that lie outside the level are left out.
        """
        self.tiles.announce(level, self._levels[level].grid.uses(boxes))

    def forget(self) -> None:
        """Drop what was announced and is held."""
        self.tiles.forget()

    def _decode(self, key: TileKey, buffer: Pixels | None) -> Pixels:
        """Read and decode one tile, into `buffer` where it fits; ValueError where its bytes are damaged."""
        level = self._levels[key[0]]
        index = key[1] * level.grid.columns + key[2]
        tile_width, tile_height = level.grid.tile_px
        count, offset = int(level.byte_counts[index]), int(level.offsets[index])
        if count == 0:
            return np.full((tile_height, tile_width, 3), 255, dtype=np.uint8)
        if not 0 < count <= self._size_bytes - offset:
            raise ValueError(f"tile {key[1:]} of level {key[0]} lies outside the file")
        data = os.pread(self._file, count, offset)
        # The decoder fills memory of the right size, whatever size a damaged tile claims to have.
        if buffer is None or buffer.shape != (tile_height, tile_width, 3):
            buffer = np.empty((tile_height, tile_width, 3), dtype=np.uint8)
        decoded = level.decode(data, index, buffer)
        if decoded is None or decoded.shape != (tile_height, tile_width, 3) or decoded.dtype != np.uint8:
            raise ValueError(f"tile {key[1:]} of level {key[0]} is not {tile_width}x{tile_height} 8-bit RGB")
        tile: Pixels = decoded
        return tile

    def _check_first_tile(self) -> None:
        """Refuse files whose JPEG tiles carry a colour note of their own that contradicts the directory's."""
        for level in self._levels:
            present = np.flatnonzero(level.byte_counts)
            if level.compression != _JPEG or not len(present):
                continue
            offset, count = int(level.offsets[present[0]]), int(level.byte_counts[present[0]])
            header = os.pread(self._file, min(count, 1024), offset)
            at = header.find(_ADOBE_MARKER)
            if at >= 0 and at + 11 < len(header):
                # APP14: "Adobe", version, two flag words, then the transform: 0 RGB, 1 YCbCr
                is_ycbcr = header[at + 11] == 1
                if is_ycbcr != (level.photometric == _YCBCR):
                    raise NotReadable("JPEG tiles and the directory disagree about the colour space")


def _pyramid(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """Return the pages of the levels, largest first; NotReadable where the layout is not a plain pyramid."""
    foreign = sorted(set(tiff.flags) - _PLAIN_LAYOUTS)
    if foreign:
        raise NotReadable(f"a {' '.join(foreign)} file")
    pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
    if len(pages) != len(tiff.pages) or not pages or not pages[0].is_tiled:
        raise NotReadable("the first image is not tiled")
    is_aperio = pages[0].description.startswith("Aperio")
    levels = [pages[0]]
    levels += [page for page in pages[1:] if page.is_tiled and (is_aperio or page.subfiletype & _REDUCED_IMAGE)]
    for page in levels:
        _check(page)
    return sorted(levels, key=lambda page: -page.imagewidth)


def _check(page: tifffile.TiffPage) -> None:
    """Raise NotReadable for what this reader does not decode."""
    compression = int(page.compression)
    colours = (_RGB, _YCBCR) if compression in (_JPEG, _JPEG_2000) else (_RGB,)
    checks = {
        "an empty image": page.imagewidth > 0 and page.imagelength > 0,
        "not 8-bit": page.dtype == np.uint8,
        "not three samples a pixel, side by side": page.samplesperpixel == 3 and page.planarconfig == 1,
        f"compression {compression}": compression in _COMPRESSIONS,
        f"photometric {int(page.photometric)}": int(page.photometric) in colours,
        f"predictor {page.predictor}": page.predictor in (1, 2),
        "a volume": page.imagedepth == 1 and page.tiledepth == 1,
        "images inside images": not page.subifds,
        "tiles of an absurd size": 0 < max(page.tilewidth, page.tilelength) <= _LARGEST_TILE_PX,
        "fill order": page.fillorder == 1,
    }
    wrong = [reason for reason, is_right in checks.items() if not is_right]
    if wrong:
        raise NotReadable("; ".join(wrong))


def _layers(pages: Sequence[tifffile.TiffPage], downsamples: Sequence[float]) -> list[tuple[tifffile.TiffPage, int]]:
    """Return the file's levels (page, 1), and between them those that the JPEG decoder can make (page, 2 or 4)."""
    layers = []
    for page, own, next_own in zip(pages, downsamples, [*downsamples[1:], float("inf")], strict=True):
        layers.append((page, 1))
        is_jpeg = int(page.compression) == _JPEG
        for reduction in _REDUCTIONS:
            fits = page.tilewidth % reduction == page.tilelength % reduction == 0
            if is_jpeg and fits and own * reduction < 0.95 * next_own:
                layers.append((page, reduction))
    return layers


def _level(index: int, page: tifffile.TiffPage, reduction: int) -> _Level:
    size_px = (math.ceil(page.imagewidth / reduction), math.ceil(page.imagelength / reduction))
    grid = TileGrid(index, size_px, (page.tilewidth // reduction, page.tilelength // reduction))
    offsets, counts = (np.asarray(values, dtype=np.int64) for values in (page.dataoffsets, page.databytecounts))
    if not len(offsets) == len(counts) == grid.rows * grid.columns:
        raise NotReadable(f"{len(offsets)} tiles where {grid.rows} x {grid.columns} are needed")
    decode = _decoder(page) if reduction == 1 else _reducing_decoder(page, grid.tile_px)
    return _Level(decode, int(page.compression), int(page.photometric), grid, offsets, counts)


def _reducing_decoder(page: tifffile.TiffPage, tile_px: tuple[int, int]) -> Callable[[bytes, int, Pixels], Any]:
    """Return a decoder of JPEG tiles that makes them `tile_px` (width, height), a half or quarter of their size."""
    # One complete JPEG: the shared tables, and the colour space as an Adobe segment (transform 1 is YCbCr).
    transform = int(int(page.photometric) == _YCBCR)
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    start = b"\xff\xd8" + adobe + (page.jpegtables or b"\xff\xd8\xff\xd9")[2:-2]
    full_px = (page.tilewidth, page.tilelength)

    def decode_reduced(data: bytes, index: int, buffer: Pixels) -> Any:
        whole = start + data[2:]
        height, width = simplejpeg.decode_jpeg_header(whole)[:2]
        if (width, height) != full_px:
            raise ValueError(f"a JPEG tile of {width}x{height} px where the directory says {full_px[0]}x{full_px[1]}")
        return simplejpeg.decode_jpeg(
            whole, "RGB", min_width=tile_px[0], min_height=tile_px[1], min_factor=1, buffer=buffer
        )

    return decode_reduced


def _decoder(page: tifffile.TiffPage) -> Callable[[bytes, int, Pixels], Any]:
    """Return a function from a tile's bytes, index and a buffer to its pixels."""
    if int(page.compression) == _JPEG:
        tables = page.jpegtables
        colour_space = "YCBCR" if int(page.photometric) == _YCBCR else "RGB"

        def decode_jpeg(data: bytes, index: int, buffer: Pixels) -> Any:
            return imagecodecs.jpeg8_decode(
                data, tables=tables, colorspace=colour_space, outcolorspace="RGB", out=buffer
            )

        return decode_jpeg
    decode = page.decode  # it looks into the open file when it is made, and never again
    is_jpeg_2000 = int(page.compression) == _JPEG_2000
    tile_px = (page.tilewidth, page.tilelength)

    def decode_other(data: bytes, index: int, buffer: Pixels) -> Any:
        if is_jpeg_2000 and _jpeg_2000_size(data) != tile_px:
            raise ValueError("a JPEG 2000 tile claims another size than the directory")
        decoded = decode(data, index)[0]
        return None if decoded is None else decoded[0]

    return decode_other


def _jpeg_2000_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) from the SIZ segment that begins a codestream (ISO 15444-1, A.5.1)."""
    if len(data) < 24 or data[:4] != b"\xff\x4f\xff\x51":
        raise ValueError("a tile is no JPEG 2000 codestream")
    x1, y1, x0, y0 = struct.unpack(">4I", data[8:24])
    return x1 - x0, y1 - y0


def _downsample(full: Sequence[int], size: Sequence[int], is_aperio: bool) -> float:
    """Level-0 pixels per pixel: the mean ratio of the sides, whole for Aperio (see `true_downsample`)."""
    ratio = (full[0] / size[0] + full[1] / size[1]) / 2
    return true_downsample("aperio" if is_aperio else "generic-tiff", ratio)


def true_downsample(vendor: str, said: float) -> float:
    """Return a level's downsample from the ratio of sizes.

    Aperio scanners divide by a whole number and drop the odd last pixels: 4443 -> 2221 is exactly 2, not
    2.0005, and the ratio would shift the far corner by two level-0 pixels. Elsewhere the ratio is believed;
    it was the better of the two on the real generic TIFF pyramids where both were measured.
    """
    is_nearly_whole = abs(said - round(said)) < 0.005 * said
    return float(round(said)) if vendor == "aperio" and is_nearly_whole else said
