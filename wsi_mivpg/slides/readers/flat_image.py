"""Flat pictures as slides of one level: PNG, JPEG, BMP, WebP and the single-plane TIFF files that others leave.

The picture is decoded once, as a whole, at the first read.
"""

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL.TiffImagePlugin import TiffImageFile

from wsi_mivpg.slides.readers.base import NotReadable, Pixels
from wsi_mivpg.slides.readers.picture import decoded_picture, opened_picture, stated_dpi
from wsi_mivpg.slides.resolution import is_plausible, mpp_from_tiff_tags

MOST_PX = 1_000_000_000
"""A billion pixels are 3 GB of memory; larger slides need a pyramid."""
_UM_PER_INCH = 25_400.0


class FlatImageReader:
    """One picture; see `Reader` for the attributes.

    `mpp` is what the file states where a microscope can have it (0.05-20 um/px). Most pictures state a screen's
    or printer's 72 to 300 dpi, which is 85 to 353 um/px and says nothing about the tissue: that is taken as None.
    """

    name = "flat-image"
    vendor = "unknown"

    def __init__(self, path: Path) -> None:
        """Read the header of `path`.

        Raises:
            NotReadable: what `opened_picture` refuses, more than 8 bits a sample or a billion pixels among it.
        """
        try:
            with opened_picture(path, MOST_PX) as picture:
                self.level_sizes_px: tuple[tuple[int, int], ...] = (picture.size,)
                is_tiff = isinstance(picture, TiffImageFile)
                dpi = None if is_tiff else stated_dpi(picture)
        except (ValueError, OSError) as error:
            raise NotReadable(str(error)) from error
        said = None if dpi is None else (_UM_PER_INCH / dpi[0], _UM_PER_INCH / dpi[1])
        if is_tiff:
            said = mpp_from_tiff_tags(path)
        self.mpp = said if said is not None and is_plausible(said) else None
        self.mpp_source = "tiff tags" if is_tiff else "file"
        self.downsamples: tuple[float, ...] = (1.0,)
        self._path = path
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None
        self._failure = ""

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
        """Return uint8[height, width, 3] of a box inside level 0, a copy."""
        width, height = size_px
        return self._decoded()[y : y + height, x : x + width].copy()

    def announce(self, level: int, boxes: npt.NDArray[np.int64]) -> None:
        """Do nothing: the whole picture is held."""

    def forget(self) -> None:
        """Do nothing: the picture is held until it is closed."""

    def close(self) -> None:
        """Drop the pixels; reading afterwards is an error."""
        with self._lock:
            self._pixels, self._failure = None, "the slide is closed"

    def _decoded(self) -> Pixels:
        """Return the picture; a failure is kept, so that a damaged one is not decoded again for every read."""
        with self._lock:
            if self._failure:
                raise ValueError(self._failure)
            if self._pixels is None:
                try:
                    pixels = decoded_picture(self._path, MOST_PX)
                    if pixels.shape[1::-1] != self.level_sizes_px[0]:
                        raise ValueError("it has another size than when it was opened")
                except (ValueError, OSError, MemoryError) as error:
                    self._failure = str(error) or "not enough memory"
                    raise
                self._pixels = pixels
            return self._pixels
