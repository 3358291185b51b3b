"""What every reader gives: levels, a resolution if the file states one, and pixels of a box."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


class NotReadable(Exception):
    """This reader cannot be sure that it reads the file right; the next one is asked."""


class Reader(Protocol):
    """One open file. Reading is safe from several threads.

    Attributes:
        name: as it is recorded in bags.
        vendor: of the scanner, or "unknown".
        level_sizes_px: (width, height) of each level, level 0 first.
        downsamples: level-0 pixels per pixel of each level, as floats.
        mpp: (x, y) microns per pixel of level 0 as the file states them, or None.
        mpp_source: where `mpp` comes from: "file" or "tiff tags".
    """

    name: str
    vendor: str
    level_sizes_px: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    mpp: tuple[float, float] | None
    mpp_source: str

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
        """Return uint8[height, width, 3] of a box that lies inside the level, in its pixels.

        A reader may fill `out`, of that shape, and return it; it never returns memory that it will change later.
        """
        ...

    def announce(self, level: int, boxes: npt.NDArray[np.int64]) -> None:
        """Learn that each box, int64 (N, 4) x, y, width, height in pixels of the level, will be read once."""
        ...

    def forget(self) -> None:
        """Drop what was announced."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A reader whose bytes are not those of one local file, so that it must tell itself what identifies the slide."""

    def fingerprint(self) -> str:
        """Return a sha256 in hex; OSError where the bytes cannot be reached."""
        ...


class DicomUids(NamedTuple):
    """What names a slide's full-resolution image (level 0) in DICOM."""

    study: str
    series: str
    instance: str


@runtime_checkable
class OfDicom(Protocol):
    """A reader that may have a DICOM slide open.

    Attributes:
        dicom: its UIDs; None for a slide of another kind, or one that does not state them.
    """

    dicom: DicomUids | None
