"""One picture file (PNG, JPEG, BMP, WebP or TIFF) through PIL, only where eight bits show all that it holds.

PIL would quietly narrow 16-bit PNGs and warn about slides as if they were attacks; here the first is refused and the
limit is the caller's.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from wsi_mivpg.slides.readers.base import Pixels
from wsi_mivpg.slides.readers.via_openslide import over_white

# Told by the first bytes, not by the name. The classes are called directly because `Image.open` enforces a limit of
# its own (179 million pixels), which could only be changed for the whole process.
_KINDS: tuple[tuple[bytes, Callable[[Path], ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"\xff\xd8\xff", JpegImageFile),
    (b"BM", BmpImageFile),
    (b"RIFF", WebPImageFile),
    *((magic, TiffImageFile) for magic in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")),
)
# PIL's plugins raise many kinds for damaged files.
_DAMAGED = (SyntaxError, ValueError, LookupError, TypeError, AttributeError, struct.error, EOFError, OSError)
_MODES = frozenset({"RGB", "RGBA", "L", "LA", "P", "PA"})
_PNG_DEPTH_AT = 24
_BITS_PER_SAMPLE = 258


@contextmanager
def opened_picture(path: Path, most_px: int) -> Iterator[ImageFile]:
    """Open a picture, its pixels not yet decoded, and close it at the end.

    Raises:
        ValueError: no picture, a damaged header, more than `most_px` pixels by its header, more than 8 bits a
            sample, several pictures in one file, or colours other than RGB, RGBA, grey and palette.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(_PNG_DEPTH_AT + 1)
    kind = next((kind for magic, kind in _KINDS if start.startswith(magic)), None)
    if kind is None:
        raise ValueError("not a PNG, JPEG, BMP, WebP or TIFF picture")
    try:
        picture = kind(path)
    except _DAMAGED as error:
        raise ValueError(f"damaged or not a picture ({error})") from error
    with picture:
        _check(picture, start, most_px)
        yield picture


def decoded_picture(path: Path, most_px: int) -> Pixels:
    """Return a picture as uint8[height, width, 3]; grey and palette become RGB, transparency becomes white.

    Pixels lie as they are stored: an EXIF orientation is not applied.

    Raises:
        ValueError: what `opened_picture` refuses, and pixels that cannot be decoded.
        OSError: it cannot be read.
    """
    with opened_picture(path, most_px) as picture:
        try:
            return over_white(picture)
        except _DAMAGED as error:
            raise ValueError(f"its pixels cannot be decoded ({error})") from error


def _check(picture: ImageFile, start: bytes, most_px: int) -> None:
    width, height = picture.size
    if not 0 < width * height <= most_px:
        raise ValueError(f"{width}x{height} px by its header, and from 1 to {most_px:.3g} pixels are decoded at once")
    if isinstance(picture, PngImageFile):
        bits = start[_PNG_DEPTH_AT]
    elif isinstance(picture, TiffImageFile):
        bits = max(picture.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    else:
        bits = 8
    if bits > 8:
        raise ValueError(f"{bits} bits a sample; convert it to 8-bit colour")
    if picture.mode not in _MODES:
        raise ValueError(f"colours {picture.mode!r}; convert it to 8-bit RGB")
    try:
        n_pictures = int(getattr(picture, "n_frames", 1))
    except _DAMAGED as error:  # it looks for further pictures in the file
        raise ValueError(f"damaged ({error})") from error
    if n_pictures != 1:
        raise ValueError(f"{n_pictures} pictures in one file; name a file with one")


def stated_dpi(picture: Image.Image) -> tuple[float, float] | None:
    """Return the pixels per inch (x, y) that a picture's metadata state, or None."""
    dpi = picture.info.get("dpi")
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    x, y = float(dpi[0]), float(dpi[1])
    return (x, y) if x > 0 and y > 0 else None
