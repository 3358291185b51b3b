"""Slides through TiffSlide: plain and OME TIFF files that the other readers leave, and TIFF files at addresses."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_mivpg.slides.address import without_secrets
from wsi_mivpg.slides.fingerprint import fingerprint_of
from wsi_mivpg.slides.readers.base import NotReadable, Pixels
from wsi_mivpg.slides.readers.via_openslide import over_white
from wsi_mivpg.slides.resolution import mpp_from_properties, mpp_from_tiff_page


class TiffSlideReader:
    """See `Reader` for the attributes."""

    name = "tiffslide"

    def __init__(self, path: Path | str) -> None:
        """Open a slide; text is an address for fsspec.

        Raises:
            NotReadable: not an 8-bit colour TIFF, or TiffSlide does not open it.
        """
        import tiffslide

        handle: Any = None
        try:
            handle = tiffslide.TiffSlide(path)
            page = handle.ts_tifffile.series[0].levels[0]
            if page.dtype != np.uint8 or page.shape[-1] not in (3, 4) or len(page.shape) != 3:
                raise NotReadable(f"not an 8-bit colour image (shape {page.shape}, {page.dtype})")
            properties = handle.properties
            self.vendor = str(properties.get("tiffslide.vendor") or "unknown")
            self.level_sizes_px = tuple((int(width), int(height)) for width, height in handle.level_dimensions)
            self.downsamples = tuple(float(said) for said in handle.level_downsamples)
            self.mpp, self.mpp_source = mpp_from_properties(properties), "file"
            if self.mpp is None:
                self.mpp, self.mpp_source = mpp_from_tiff_page(handle.ts_tifffile.pages[0]), "tiff tags"
        except Exception as error:  # it has its own zoo of errors for foreign files, and fsspec's for addresses
            if handle is not None:
                handle.close()
            raise NotReadable(str(error) or type(error).__name__) from error
        self._handle = handle
        self._lock = threading.Lock()

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
        """Return uint8[height, width, 3] of a box inside the level; one thread at a time."""
        downsample = self.downsamples[level]
        corner = (_first_l0_px(x, downsample), _first_l0_px(y, downsample))
        with self._lock:
            return over_white(self._handle.read_region(corner, level, size_px))

    def announce(self, level: int, boxes: npt.NDArray[np.int64]) -> None:
        """Do nothing: nothing is kept."""

    def forget(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


class RemoteTiffSlideReader(TiffSlideReader):
    """A TIFF slide at an address that fsspec opens: "https://…", "s3://…", "memory://…".

    Errors show the address without user, password and query.
    """

    def __init__(self, address: str) -> None:
        """Open the slide at `address`; only what is needed is fetched, where the server gives ranges.

        Raises:
            NotReadable: no such address, no package for its kind, or no 8-bit colour TIFF there.
        """
        self._address = address
        try:
            super().__init__(address)
        except NotReadable as reason:
            raise NotReadable(without_secrets(str(reason), address)) from reason

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
        """Return uint8[height, width, 3] of a box inside the level; one thread at a time."""
        try:
            return super().read(x, y, level, size_px)
        except Exception as error:  # every kind of server and network has errors of its own
            raise OSError(without_secrets(str(error) or type(error).__name__, self._address)) from error

    def fingerprint(self) -> str:
        """Return the sha256, in hex, of the remote file's size and its first and last MiB; OSError if unreachable."""
        import fsspec

        try:
            with fsspec.open(self._address, "rb") as stream:
                return fingerprint_of(stream)
        except Exception as error:  # as for `read`
            raise OSError(without_secrets(str(error) or type(error).__name__, self._address)) from error


def _first_l0_px(index: int, downsample: float) -> int:
    """Return the first level-0 pixel that TiffSlide, which divides and cuts off, takes for pixel `index` of a level."""
    first = math.ceil(index * downsample)
    return first if int(first / downsample) == index else first + 1
