"""Slides through TiffSlide: plain and OME TIFF files that the other readers leave."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from wsi_mivpg.slides.readers.base import NotReadable, Pixels
from wsi_mivpg.slides.readers.via_openslide import over_white
from wsi_mivpg.slides.resolution import mpp_from_properties, mpp_from_tiff_tags


class TiffSlideReader:
    """See `Reader` for the attributes."""

    name = "tiffslide"

    def __init__(self, path: Path) -> None:
        """Open a slide.

        Raises:
            NotReadable: not an 8-bit colour TIFF, or TiffSlide does not open it.
        """
        import tiffslide

        try:
            with tifffile.TiffFile(path) as tiff:
                page = tiff.series[0].levels[0]
                if page.dtype != np.uint8 or page.shape[-1] not in (3, 4) or len(page.shape) != 3:
                    raise NotReadable(f"not an 8-bit colour image (shape {page.shape}, {page.dtype})")
            self._handle: Any = tiffslide.TiffSlide(path)
        except NotReadable:
            raise
        except Exception as error:  # it has its own zoo of errors for foreign files
            raise NotReadable(str(error)) from error
        properties = self._handle.properties
        self.vendor = str(properties.get("tiffslide.vendor") or "unknown")
        self.level_sizes_px = tuple((int(width), int(height)) for width, height in self._handle.level_dimensions)
        self.downsamples = tuple(float(said) for said in self._handle.level_downsamples)
        self.mpp, self.mpp_source = mpp_from_properties(properties), "file"
        if self.mpp is None:
            self.mpp, self.mpp_source = mpp_from_tiff_tags(path), "tiff tags"
        self._lock = threading.Lock()

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int]) -> Pixels:
        """Return uint8[height, width, 3] of a box inside the level; one thread at a time."""
        downsample = self.downsamples[level]
        with self._lock:
            return over_white(
                self._handle.read_region((round(x * downsample), round(y * downsample)), level, size_px)
            )

    def announce(self, level: int, boxes: npt.NDArray[np.int64]) -> None:
        """Do nothing: nothing is kept."""

    def forget(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the file."""
        self._handle.close()
