"""Which reader opens a file: they are asked in order, the fastest correct one first."""

from collections.abc import Callable
from pathlib import Path, PurePath

from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.address import is_address, named_path, shown_address
from wsi_mivpg.slides.readers.base import NotReadable, Reader
from wsi_mivpg.slides.reading import LEVEL_TOLERANCE, Slide
from wsi_mivpg.slides.resolution import checked_mpp
from wsi_mivpg.slides.tiff_health import is_tiff, tiff_problem


def _deepzoom(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.deepzoom import DeepZoomReader

    return DeepZoomReader(path)


def _tile_once(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.tiled_tiff import TiledTiffReader

    return TiledTiffReader(path)


def _tile_once_fast(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.tiled_tiff import TiledTiffReader

    return TiledTiffReader(path, fast=True)


def _openslide(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.via_openslide import OpenSlideReader

    return OpenSlideReader(path)


def _tiffslide(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.via_tiffslide import TiffSlideReader

    return TiffSlideReader(path)


def _flat_image(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.flat_image import FlatImageReader

    return FlatImageReader(path)


READERS: dict[str, Callable[[Path], Reader]] = {
    # Told by the suffix alone, so it costs other files nothing, and nothing else opens a .dzi.
    "deepzoom": _deepzoom,
    "tile-once": _tile_once,
    "openslide": _openslide,
    "tiffslide": _tiffslide,
    # Last: a pyramid must never be taken for the one picture at its start.
    "flat-image": _flat_image,
}
"""Name -> opener, in the order in which they are asked."""
# Its half-size level of a 0.263 um/px slide is 5 % coarser than 0.5: used, and enlarged by that, rather than lost.
_FAST_LEVEL_TOLERANCE = 0.06
# A tile of 1,024 px that the file leaves out takes 16 bytes of its index: 65,536 pixels a byte.
_MOST_PX_PER_BYTE = 100_000
_REMOTE_READER = "tiffslide"


def open_slide(
    path: Path | str, *, mpp: float | None = None, reader: str | None = None, fast_decode: bool = False
) -> Slide:
    """Open a slide with the first reader that is sure of it.

    Args:
        path: the slide's file, or the address of one ("https://…", "s3://…") as text. Addresses are opened by
            "tiffslide" only, through fsspec; "simplecache::" before one makes a local copy first.
        mpp: microns per pixel of level 0; it wins over the file's.
        reader: name in `READERS`; only that one is asked.
        fast_decode: let the JPEG decoder of "tile-once" shrink tiles itself where a half or a quarter of their size
            is wanted, to within 6 %; pixels are then close to, not equal to, the mean of the area.

    Raises:
        SlideError: no such file, address or reader, or no reader opens it as an 8-bit colour slide.
        ResolutionError: the microns per pixel are missing, absurd or differ between x and y.
    """
    if reader is not None and reader not in READERS:
        raise SlideError(f"there is no reader {reader!r}; choose one of: {', '.join(READERS)}")
    if isinstance(path, str) and is_address(path):
        return _slide(named_path(path), _opened_remote(path, reader), mpp, shown_address(path))
    path = Path(path)
    if not path.exists():
        raise SlideError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise SlideError(f"{path}: a folder, not a slide; name the slide's file")
    if not path.stat().st_size:
        raise SlideError(f"{path}: the file is empty; copy it again")
    if problem := tiff_problem(path):
        raise SlideError(f"{path}: not a slide that can be read ({problem}); the file is damaged, copy it again")
    readers = READERS if reader is None else {reader: READERS[reader]}
    if fast_decode:
        readers = {name: _tile_once_fast if name == "tile-once" else opener for name, opener in readers.items()}
    opened = _opened(path, readers)
    width, height = opened.level_sizes_px[0]
    if width * height > _MOST_PX_PER_BYTE * path.stat().st_size and is_tiff(path):
        opened.close()
        raise SlideError(f"{path}: {width}x{height} px in a file of that size cannot be; it is damaged, copy it again")
    return _slide(path, opened, mpp, str(path))


def _slide(path: PurePath, opened: Reader, mpp: float | None, source: str) -> Slide:
    tolerance = _FAST_LEVEL_TOLERANCE if opened.name == "tile-once-fast" else LEVEL_TOLERANCE
    said, mpp_source = (opened.mpp, opened.mpp_source) if mpp is None else ((mpp, mpp), "user")
    try:
        value = checked_mpp(source, said)
        return Slide(path, opened, value, mpp_source, source=source, level_tolerance=tolerance)
    except BaseException:
        opened.close()
        raise


def _opened(path: Path, readers: dict[str, Callable[[Path], Reader]]) -> Reader:
    reasons = []
    for name, opener in readers.items():
        try:
            return opener(path)
        except NotReadable as reason:
            reasons.append(f"{name}: {reason}")
    raise SlideError(
        f"{path}: not a slide that can be read ({'; '.join(reasons)}); "
        "convert it to a pyramidal TIFF, for example with `vips tiffsave --pyramid --tile`"
    )


def _opened_remote(address: str, reader: str | None) -> Reader:
    from wsi_mivpg.slides.readers.via_tiffslide import RemoteTiffSlideReader

    shown = shown_address(address)
    if reader not in (None, _REMOTE_READER):
        raise SlideError(f"{shown}: {reader} reads files only; leave --reader out, or copy the slide to this machine")
    try:
        return RemoteTiffSlideReader(address)
    except NotReadable as reason:
        raise SlideError(
            f"{shown}: cannot be opened from there ({reason}); check the address and the access to it, "
            "or copy the slide to this machine"
        ) from reason
