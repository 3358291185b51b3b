"""Open a slide and read any field of view at any microns per pixel.

Decoding is OpenSlide's or TiffSlide's; this file owns geometry (float downsamples, exact fields of view)
and clear errors. It does not choose which tiles to read.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.resolution import checked_mpp, mpp_from_properties, mpp_from_tiff_tags

Pixels = npt.NDArray[np.uint8]

_MIB = 1 << 20
_BLOCK_SOURCE_PX = 4096
_LEVEL_TOLERANCE = 1e-3


class Slide:
    """One open whole-slide image; use it as a context manager.

    Attributes:
        path: the file.
        size_px: (width, height) of level 0.
        mpp: microns per pixel of level 0, the same in x and y.
        mpp_source: "file", "tiff tags" or "user".
        vendor: as the reader names it, or "unknown".
        reader: "openslide" or "tiffslide".
        level_sizes_px: (width, height) of each level, level 0 first.
        downsamples: level-0 pixels per pixel of each level, as floats.

    Reading is safe from several threads.
    """

    def __init__(self, path: Path, handle: Any, reader: str, mpp: float, mpp_source: str) -> None:
        self.path = path
        self.reader = reader
        self.mpp = mpp
        self.mpp_source = mpp_source
        self.vendor = str(handle.properties.get(f"{reader}.vendor") or "unknown")
        sizes = ((int(width), int(height)) for width, height in handle.level_dimensions)
        self.level_sizes_px: tuple[tuple[int, int], ...] = tuple(sizes)
        self.size_px = self.level_sizes_px[0]
        self._reader_downsamples = tuple(float(d) for d in handle.level_downsamples)
        self.downsamples = tuple(true_downsample(self.vendor, said) for said in self._reader_downsamples)
        self._handle = handle
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        width, height = self.size_px
        return f"Slide({self.path.name}, {width}x{height} px, {self.mpp:g} um/px, {self.reader})"

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._handle.close()

    def read_level(self, x0: int, y0: int, level: int, size_px: tuple[int, int]) -> Pixels:
        """Read `size_px` (width, height) pixels of a level from (x0, y0), **in pixels of that level**.

        Returns:
            uint8[height, width, 3]; what lies outside the slide, and transparency, is white.

        Raises:
            SlideError: the pixels cannot be decoded.
        """
        width, height = size_px
        level_width, level_height = self.level_sizes_px[level]
        left, right = max(x0, 0), min(x0 + width, level_width)
        top, bottom = max(y0, 0), min(y0 + height, level_height)
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        if right > left and bottom > top:
            inside = self._decode(left, top, level, (right - left, bottom - top))
            pixels[top - y0 : bottom - y0, left - x0 : right - x0] = inside
        return pixels

    def read_region(self, x: float, y: float, size_px: int | tuple[int, int], mpp: float) -> Pixels:
        """Read `size_px` pixels of `mpp` microns each; their top left corner is (x, y) in level-0 pixels.

        The field of view is exact: `size_px * mpp / self.mpp` level-0 pixels, from the coarsest level that is
        not coarser than `mpp`, resampled with a float box.

        Returns:
            uint8[height, width, 3]; white outside the slide.

        Raises:
            SlideError: the pixels cannot be decoded.
        """
        width, height = (size_px, size_px) if isinstance(size_px, int) else size_px
        scale = mpp / self.mpp
        return self._render((x, y, width * scale, height * scale), (width, height))

    def thumbnail(self, max_side_px: int) -> Pixels:
        """Return the whole slide as uint8[height, width, 3], never enlarged beyond level 0."""
        scale = max(1.0, max(self.size_px) / max_side_px)
        width, height = (max(1, round(side / scale)) for side in self.size_px)
        return self._render((0.0, 0.0, float(self.size_px[0]), float(self.size_px[1])), (width, height))

    def fingerprint(self) -> str:
        """Return the sha256 of the file's size and its first and last MiB."""
        size = self.path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with self.path.open("rb") as stream:
            digest.update(stream.read(_MIB))
            stream.seek(max(0, size - _MIB))
            digest.update(stream.read(_MIB))
        return digest.hexdigest()

    def _render(self, box_l0: tuple[float, float, float, float], size_px: tuple[int, int]) -> Pixels:
        """Resample the level-0 box (x, y, width, height) to `size_px`, in blocks that fit memory."""
        x, y, box_width, box_height = box_l0
        width, height = size_px
        scale_x, scale_y = box_width / width, box_height / height
        level = coarsest_level(self.downsamples, min(scale_x, scale_y))
        block = max(16, int(_BLOCK_SOURCE_PX * self.downsamples[level] / max(scale_x, scale_y)))
        if width <= block and height <= block:
            return self._resample(box_l0, size_px, level)
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        for top in range(0, height, block):
            for left in range(0, width, block):
                part = (min(block, width - left), min(block, height - top))
                corner = (x + left * scale_x, y + top * scale_y)
                box = (*corner, part[0] * scale_x, part[1] * scale_y)
                pixels[top : top + part[1], left : left + part[0]] = self._resample(box, part, level)
        return pixels

    def _resample(self, box_l0: tuple[float, float, float, float], size_px: tuple[int, int], level: int) -> Pixels:
        """Read the pixels that cover a level-0 box, with a margin for the filter, and resample them once."""
        x, y, width, height = (value / self.downsamples[level] for value in box_l0)
        margin_x, margin_y = math.ceil(width / size_px[0]) + 1, math.ceil(height / size_px[1]) + 1
        left, top = math.floor(x + 1e-6), math.floor(y + 1e-6)
        is_native = abs(width - size_px[0]) < 1e-3 and abs(height - size_px[1]) < 1e-3
        if is_native and _is_whole(x) and _is_whole(y):
            return self.read_level(round(x), round(y), level, size_px)
        # The margin gives the filter its true neighbours, so tiles equal crops of one resampled slide;
        # it stops at the slide's edge so that the white outside does not bleed in.
        level_width, level_height = self.level_sizes_px[level]
        right, bottom = math.ceil(x + width), math.ceil(y + height)
        read_left, read_right = _widened(left, right, margin_x, level_width)
        read_top, read_bottom = _widened(top, bottom, margin_y, level_height)
        source = self.read_level(read_left, read_top, level, (read_right - read_left, read_bottom - read_top))
        box = (x - read_left, y - read_top, x - read_left + width, y - read_top + height)
        box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], source.shape[1]), min(box[3], source.shape[0]))
        # HAMMING: PIL's BOX snaps to whole source pixels, which shifts content by up to half a pixel.
        resized = Image.fromarray(source).resize(size_px, Image.Resampling.HAMMING, box=box)
        return np.asarray(resized)

    def _decode(self, x: int, y: int, level: int, size_px: tuple[int, int]) -> Pixels:
        """Decode a box that lies inside the level, given in its pixels; transparency becomes white."""
        reader_downsample = self._reader_downsamples[level]
        corner = (round(x * reader_downsample), round(y * reader_downsample))
        try:
            if self.reader == "openslide":
                image = self._handle.read_region(corner, level, size_px)
            else:
                with self._lock:
                    image = self._handle.read_region(corner, level, size_px)
        except Exception as error:  # readers raise many kinds for damaged data
            raise SlideError(
                f"{self.path}: cannot decode level {level} at {corner}: {error}; the file may be damaged, copy it again"
            ) from error
        return _over_white(image)


def open_slide(path: Path | str, *, mpp: float | None = None) -> Slide:
    """Open a slide with the first reader that can.

    Args:
        path: the slide's file.
        mpp: microns per pixel of level 0; it wins over the file's.

    Raises:
        SlideError: no such file, or no reader opens it as an 8-bit colour slide.
        ResolutionError: the microns per pixel are missing, absurd or differ between x and y.
    """
    path = Path(path)
    if not path.exists():
        raise SlideError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise SlideError(f"{path}: a folder, not a slide; name the slide's file")
    handle, reader = _open_with_first_reader(path)
    try:
        value, source = _resolution(path, handle, mpp)
        return Slide(path, handle, reader, value, source)
    except BaseException:
        handle.close()
        raise


def true_downsample(vendor: str, said: float) -> float:
    """Return a level's downsample from the ratio of sizes that a reader gives.

    Aperio scanners divide by a whole number and drop the odd last pixels: 4443 -> 2221 is exactly 2, not
    2.0005, and the ratio would shift the far corner by two level-0 pixels. Elsewhere the ratio is believed;
    it was the better of the two on the real generic TIFF pyramids where both were measured.
    """
    is_nearly_whole = abs(said - round(said)) < 0.005 * said
    return float(round(said)) if vendor == "aperio" and is_nearly_whole else said


def coarsest_level(downsamples: Sequence[float], scale: float) -> int:
    """Return the coarsest level whose downsample is at most `scale` (level-0 px per output px)."""
    most = scale * (1 + _LEVEL_TOLERANCE)
    usable = [level for level, downsample in enumerate(downsamples) if downsample <= most]
    return max(usable, key=lambda level: downsamples[level], default=0)


def _resolution(path: Path, handle: Any, user_mpp: float | None) -> tuple[float, str]:
    if user_mpp is not None:
        return checked_mpp(path, (user_mpp, user_mpp)), "user"
    found = mpp_from_properties(handle.properties)
    from_tags = mpp_from_tiff_tags(path)
    if found is None:
        return checked_mpp(path, from_tags), "tiff tags"
    is_generic = handle.properties.get("openslide.vendor", "generic-tiff") == "generic-tiff"
    return checked_mpp(path, found), "tiff tags" if from_tags is not None and is_generic else "file"


def _open_with_openslide(path: Path) -> Any:
    import openslide

    return openslide.OpenSlide(path)


def _open_with_tiffslide(path: Path) -> Any:
    import tifffile
    import tiffslide

    with tifffile.TiffFile(path) as tiff:
        page = tiff.series[0].levels[0]
        if page.dtype != np.uint8 or page.shape[-1] not in (3, 4) or len(page.shape) != 3:
            raise ValueError(f"not an 8-bit colour image (shape {page.shape}, {page.dtype})")
    return tiffslide.TiffSlide(path)


# OpenSlide first: it knows vendors' formats and decodes without a lock; TiffSlide for plain TIFF files.
_READERS: tuple[tuple[str, Callable[[Path], Any]], ...] = (
    ("openslide", _open_with_openslide),
    ("tiffslide", _open_with_tiffslide),
)


def _open_with_first_reader(path: Path) -> tuple[Any, str]:
    reasons = []
    for name, opened in _READERS:
        try:
            return opened(path), name
        except Exception as error:  # each reader has its own zoo of errors for foreign files
            reasons.append(f"{name}: {error}")
    raise SlideError(
        f"{path}: not a slide that can be read ({'; '.join(reasons)}); "
        "convert it to a pyramidal TIFF, for example with `vips tiffsave --pyramid --tile`"
    )


def _over_white(image: Image.Image) -> Pixels:
    pixels = np.asarray(image)
    if image.mode == "RGB":
        return pixels
    if image.mode != "RGBA":
        return np.asarray(image.convert("RGB"))
    alpha = pixels[..., 3:]
    if alpha.min() == 255:
        return pixels[..., :3]
    weight = alpha.astype(np.float32) / 255
    mixed = pixels[..., :3] * weight + 255 * (1 - weight)
    return np.rint(mixed).astype(np.uint8)


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


def _widened(start: int, stop: int, margin: int, limit: int) -> tuple[int, int]:
    """Widen [start, stop) by `margin` on both sides, but past [0, limit) only where it already was."""
    return max(start - margin, min(start, 0)), min(stop + margin, max(stop, limit))
