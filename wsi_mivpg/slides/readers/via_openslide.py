"""Slides through OpenSlide: the vendors' formats and DICOM."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_mivpg.slides.readers.base import DicomUids, NotReadable, Pixels
from wsi_mivpg.slides.readers.tiled_tiff import true_downsample
from wsi_mivpg.slides.resolution import mpp_from_properties, mpp_from_tiff_tags

_UID = re.compile(r"[0-9][0-9.]{0,63}")


class OpenSlideReader:
    """See `Reader` for the attributes."""

    name = "openslide"

    def __init__(self, path: Path) -> None:
        """Open a slide.

        Raises:
            NotReadable: OpenSlide does not open it.
        """
        import openslide

        try:
            self._handle: Any = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise NotReadable(str(error)) from error
        properties = self._handle.properties
        self.vendor = str(properties.get("openslide.vendor") or "unknown")
        self.dicom = _dicom_uids(properties)
        self.level_sizes_px = tuple((int(width), int(height)) for width, height in self._handle.level_dimensions)
        self._said_downsamples = tuple(float(said) for said in self._handle.level_downsamples)
        self.downsamples = tuple(true_downsample(self.vendor, said) for said in self._said_downsamples)
        self.mpp = mpp_from_properties(properties)
        is_from_tags = self.vendor == "generic-tiff"
        if self.mpp is None:
            self.mpp, is_from_tags = mpp_from_tiff_tags(path), True
        self.mpp_source = "tiff tags" if is_from_tags else "file"

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
        """Return uint8[height, width, 3] of a box inside the level; transparency becomes white."""
        said = self._said_downsamples[level]
        return over_white(self._handle.read_region((round(x * said), round(y * said)), level, size_px))

    def announce(self, level: int, boxes: npt.NDArray[np.int64]) -> None:
        """Do nothing: OpenSlide keeps its own cache."""

    def forget(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def _dicom_uids(properties: Mapping[str, str]) -> DicomUids | None:
    """Return the UIDs of level 0, which is whose header OpenSlide shows, whichever file of the series was named."""
    named = [properties.get(f"dicom.{kind}InstanceUID") for kind in ("Study", "Series", "SOP")]
    uids = [uid for uid in named if uid and _UID.fullmatch(uid)]
    return DicomUids(*uids) if len(uids) == len(DicomUids._fields) else None


def over_white(image: Image.Image) -> Pixels:
    """Return an image of any mode as uint8[height, width, 3], drawn over white."""
    if image.has_transparency_data and image.mode != "RGBA":
        image = image.convert("RGBA")
    if image.mode == "RGB":
        return np.asarray(image)
    if image.mode != "RGBA":
        return np.asarray(image.convert("RGB"))
    pixels = np.asarray(image)
    alpha = pixels[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    weight = alpha.astype(np.float32) / 255
    mixed = pixels[..., :3] * weight + 255 * (1 - weight)
    return np.rint(mixed).astype(np.uint8)
