"""Which reader opens a file: they are asked in order, the fastest correct one first."""

from collections.abc import Callable
from pathlib import Path

from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.readers.base import NotReadable, Reader
from wsi_mivpg.slides.reading import Slide
from wsi_mivpg.slides.resolution import checked_mpp


def _tile_once(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.tiled_tiff import TiledTiffReader

    return TiledTiffReader(path)


def _openslide(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.via_openslide import OpenSlideReader

    return OpenSlideReader(path)


def _tiffslide(path: Path) -> Reader:
    from wsi_mivpg.slides.readers.via_tiffslide import TiffSlideReader

    return TiffSlideReader(path)


READERS: dict[str, Callable[[Path], Reader]] = {
    "tile-once": _tile_once,
    "openslide": _openslide,
    "tiffslide": _tiffslide,
}
"""Name -> opener, in the order in which they are asked."""


def open_slide(path: Path | str, *, mpp: float | None = None, reader: str | None = None) -> Slide:
    """Open a slide with the first reader that is sure of it.

    Args:
        path: the slide's file.
        mpp: microns per pixel of level 0; it wins over the file's.
        reader: name in `READERS`; only that one is asked.

    Raises:
        SlideError: no such file or reader, or no reader opens it as an 8-bit colour slide.
        ResolutionError: the microns per pixel are missing, absurd or differ between x and y.
    """
    path = Path(path)
    if not path.exists():
        raise SlideError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise SlideError(f"{path}: a folder, not a slide; name the slide's file")
    if reader is not None and reader not in READERS:
        raise SlideError(f"there is no reader {reader!r}; choose one of: {', '.join(READERS)}")
    opened = _opened(path, READERS if reader is None else {reader: READERS[reader]})
    try:
        if mpp is not None:
            return Slide(path, opened, checked_mpp(path, (mpp, mpp)), "user")
        return Slide(path, opened, checked_mpp(path, opened.mpp), opened.mpp_source)
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
