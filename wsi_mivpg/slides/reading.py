"""A slide: any field of view at any microns per pixel, from whichever reader opened the file.

Readers decode; this file owns geometry (float downsamples, exact fields of view) and clear errors. It does not choose
which tiles to read.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from wsi_mivpg import notebook_cards
from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.fingerprint import fingerprint_of
from wsi_mivpg.slides.readers.base import DicomUids, Fingerprinted, OfDicom, Pixels, Reader
from wsi_mivpg.slides.resample import resample

_BLOCK_SOURCE_PX = 4096
LEVEL_TOLERANCE = 1e-3
"""Share by which a level may be coarser than asked, which rounding of sizes makes it."""
_SNAP_L0_PX = 0.5
_ROUNDING = 1e-6


class Slide:
    """One open whole-slide image; use it as a context manager.

    Attributes:
        path: the file; for a remote slide it only names it (`path.stem`) and leads nowhere here.
        source: what messages show: the path, or the address without user, password and query.
        size_px: (width, height) of level 0.
        mpp: microns per pixel of level 0, the same in x and y.
        mpp_source: "file", "tiff tags" or "user".
        vendor: as the reader names it, or "unknown".
        reader: name of the reader.
        level_sizes_px: (width, height) of each level, level 0 first.
        downsamples: level-0 pixels per pixel of each level, as floats.
        dicom: study, series and instance UID of level 0; None for a slide that is not DICOM.

    Reading is safe from several threads.
    """

    def __init__(
        self,
        path: PurePath,
        reader: Reader,
        mpp: float,
        mpp_source: str,
        *,
        source: str | None = None,
        level_tolerance: float = LEVEL_TOLERANCE,
    ) -> None:
        self.path = path
        self.source = str(path) if source is None else source
        self.mpp = mpp
        self.mpp_source = mpp_source
        self.reader = reader.name
        self.vendor = reader.vendor
        self.level_sizes_px = reader.level_sizes_px
        self.size_px = self.level_sizes_px[0]
        self.downsamples = reader.downsamples
        self.dicom: DicomUids | None = reader.dicom if isinstance(reader, OfDicom) else None
        self._reader = reader
        self._level_tolerance = level_tolerance
        self._thread = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        width, height = self.size_px
        return f"Slide({self.path.name}, {width}x{height} px, {self.mpp:g} um/px, {self.reader})"

    @notebook_cards.safe
    def _repr_html_(self) -> str:
        from wsi_mivpg.slides.showing import slide_card

        return slide_card(self)

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._reader.close()

    def read_level(
        self, x0: int, y0: int, level: int, size_px: tuple[int, int], *, out: Pixels | None = None
    ) -> Pixels:
        """Read `size_px` (width, height) pixels of a level from (x0, y0), **in pixels of that level**.

        Args:
            x0, y0, level, size_px: which pixels.
            out: memory for them, uint8[height, width, 3]; it need not be what is returned.

        Returns:
            uint8[height, width, 3]; what lies outside the slide, and transparency, is white.

        Raises:
            SlideError: the pixels cannot be decoded.
        """
        width, height = size_px
        level_width, level_height = self.level_sizes_px[level]
        left, right = max(x0, 0), min(x0 + width, level_width)
        top, bottom = max(y0, 0), min(y0 + height, level_height)
        if (right - left, bottom - top) == size_px:
            return self._decode(left, top, level, size_px, out)
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        if right > left and bottom > top:
            inside = self._decode(left, top, level, (right - left, bottom - top))
            pixels[top - y0 : bottom - y0, left - x0 : right - x0] = inside
        return pixels

    def read_region(
        self, x: float, y: float, size_px: int | tuple[int, int], mpp: float, *, out: Pixels | None = None
    ) -> Pixels:
        """Read `size_px` pixels of `mpp` microns each; their top left corner is (x, y) in level-0 pixels.

        The field of view is exact: `size_px * mpp / self.mpp` level-0 pixels, from the coarsest level that is
        not coarser than `mpp`, resampled with a float box. `out` is memory for the region, uint8[height, width, 3]; it
        need not be what is returned.

        Returns:
            uint8[height, width, 3]; white outside the slide.

        Raises:
            SlideError: the pixels cannot be decoded.
        """
        width, height = (size_px, size_px) if isinstance(size_px, int) else size_px
        scale = mpp / self.mpp
        return self._render((x, y, width * scale, height * scale), (width, height), out)

    def thumbnail(self, max_side_px: int) -> Pixels:
        """Return the whole slide as uint8[height, width, 3], never enlarged beyond level 0."""
        scale = max(1.0, max(self.size_px) / max_side_px)
        width, height = (max(1, round(side / scale)) for side in self.size_px)
        return self._render((0.0, 0.0, float(self.size_px[0]), float(self.size_px[1])), (width, height))

    @contextmanager
    def expecting(self, corners: npt.NDArray[np.int64], size_px: int, mpp: float) -> Iterator[None]:
        """Announce that `read_region` will be called once for each corner, so that no compressed tile is decoded twice.

        Args:
            corners: (N, 2) int64, level-0 px (x, y).
            size_px: side of each region in pixels at `mpp`.
            mpp: microns per pixel of the regions.
        """
        scale = mpp / self.mpp
        level = coarsest_level(self.downsamples, scale, self._level_tolerance)
        side_l0 = size_px * scale
        boxes = np.empty((len(corners), 4), dtype=np.int64)
        for axis in (0, 1):
            limit = self.level_sizes_px[level][axis]
            first, last = self._level_edges(corners[:, axis].astype(np.float64), side_l0, level, limit)
            boxes[:, axis] = np.floor(first + _ROUNDING)
            boxes[:, 2 + axis] = np.ceil(last - _ROUNDING) - boxes[:, axis]
        self._reader.announce(level, boxes)
        try:
            yield
        finally:
            self._reader.forget()

    def fingerprint(self) -> str:
        """Return the sha256 of the file's size and its first and last MiB, or what the reader has instead.

        A remote slide gives the same as its local copy; a DeepZoom pyramid is told by its coarsest tiles too.

        Raises:
            SlideError: the bytes cannot be read again.
        """
        try:
            if isinstance(self._reader, Fingerprinted):
                return self._reader.fingerprint()
            with Path(self.path).open("rb") as stream:
                return fingerprint_of(stream)
        except OSError as error:
            raise SlideError(f"{self.source}: it cannot be read any more ({error}); check the access to it") from error

    def _render(
        self, box_l0: tuple[float, float, float, float], size_px: tuple[int, int], out: Pixels | None = None
    ) -> Pixels:
        """Resample the level-0 box (x, y, width, height) to `size_px`, in blocks that fit memory."""
        x, y, box_width, box_height = box_l0
        width, height = size_px
        scale_x, scale_y = box_width / width, box_height / height
        level = coarsest_level(self.downsamples, min(scale_x, scale_y), self._level_tolerance)
        block = max(16, int(_BLOCK_SOURCE_PX * self.downsamples[level] / max(scale_x, scale_y)))
        if width <= block and height <= block:
            return self._resample(box_l0, size_px, level, out)
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        for top in range(0, height, block):
            for left in range(0, width, block):
                part = (min(block, width - left), min(block, height - top))
                corner = (x + left * scale_x, y + top * scale_y)
                box = (*corner, part[0] * scale_x, part[1] * scale_y)
                pixels[top : top + part[1], left : left + part[0]] = self._resample(box, part, level)
        return pixels

    def _resample(
        self,
        box_l0: tuple[float, float, float, float],
        size_px: tuple[int, int],
        level: int,
        out: Pixels | None = None,
    ) -> Pixels:
        """Read the pixels that a level-0 box covers and resample them once."""
        x, y, width, height = box_l0
        level_width, level_height = self.level_sizes_px[level]
        (left,), (right,) = self._level_edges(np.array([x]), width, level, level_width)
        (top,), (bottom,) = self._level_edges(np.array([y]), height, level, level_height)
        read_left, read_top = math.floor(left + _ROUNDING), math.floor(top + _ROUNDING)
        read_size = (math.ceil(right - _ROUNDING) - read_left, math.ceil(bottom - _ROUNDING) - read_top)
        box = (left - read_left, top - read_top, right - read_left, bottom - read_top)
        if read_size == size_px and box == (0.0, 0.0, *size_px):
            return self.read_level(read_left, read_top, level, size_px, out=out)
        source = self.read_level(read_left, read_top, level, read_size, out=self._scratch(read_size))
        return resample(source, box, size_px, out)

    def _scratch(self, size_px: tuple[int, int]) -> Pixels:
        """Return memory for pixels that are only resampled; each thread has its own and uses it again.

        Fresh memory for every region costs as much in page faults as decoding a tile.
        """
        n_bytes = size_px[0] * size_px[1] * 3
        held: Pixels | None = getattr(self._thread, "held", None)
        if held is None or len(held) < n_bytes:
            held = self._thread.held = np.empty(n_bytes, dtype=np.uint8)
        return held[:n_bytes].reshape(size_px[1], size_px[0], 3)

    def _level_edges(
        self, start_l0: npt.NDArray[np.float64], length_l0: float, level: int, limit: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return where spans along one axis begin and end in pixels of a level, float64; `limit` is its length.

        Where a span begins on a whole pixel, its end is moved to one too if that is at most half a level-0 pixel;
        an end that passes the slide's by less than a pixel is moved there.
        """
        downsample = self.downsamples[level]
        start, end = start_l0 / downsample, (start_l0 + length_l0) / downsample
        begins_whole = np.abs(start - np.rint(start)) < _ROUNDING
        is_near = np.abs(end - np.rint(end)) * downsample <= _SNAP_L0_PX
        end = np.where(begins_whole & is_near, np.rint(end), end)
        return start, np.where((end > limit) & (end < limit + 1), limit, end)

    def _decode(self, x: int, y: int, level: int, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
        """Decode a box that lies inside the level, given in its pixels."""
        try:
            return self._reader.read(x, y, level, size_px, out)
        except Exception as error:  # readers raise many kinds for damaged data
            raise SlideError(
                f"{self.source}: cannot decode {size_px[0]}x{size_px[1]} px of level {level} at ({x}, {y}): {error}; "
                "the file may be damaged, copy it again"
            ) from error


def coarsest_level(downsamples: Sequence[float], scale: float, tolerance: float = LEVEL_TOLERANCE) -> int:
    """Return the coarsest level whose downsample is at most `scale` (level-0 px per output px)."""
    most = scale * (1 + tolerance)
    usable = [level for level, downsample in enumerate(downsamples) if downsample <= most]
    return max(usable, key=lambda level: downsamples[level], default=0)
