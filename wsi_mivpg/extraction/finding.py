"""Which files are meant when a user names files and folders.

Names only: no file is opened here.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from wsi_mivpg.errors import SlideError

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".qptiff", ".czi"}
    | {".dcm", ".dicom", ".dzi"}
)
"""What is picked from a folder."""


def find_slides(inputs: Iterable[Path]) -> list[Path]:
    """Return the slides meant by `inputs`: files as they are named, folders with all below them.

    Folders give their slides in name order. Hidden files are left out; a file named twice is returned once.

    A file that is named is taken whatever its suffix, so a PNG, JPEG or BMP can be a slide. From a folder such
    pictures are not picked: beside slides they are far more often thumbnails and labels. Nor are the tiles of a
    DeepZoom pyramid: `X_files` beside `X.dzi` is left out.

    Raises:
        SlideError: a path does not exist, or a folder holds no slide.
    """
    found: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            inside = sorted(_slides_below(path))
            if not inside:
                known = " ".join(sorted(SLIDE_SUFFIXES))
                raise SlideError(f"{path}: no slides in this folder; known are {known}")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise SlideError(f"{path}: no such file or folder; check the path")
    return list(found)


def unique_ids(slides: Iterable[Path]) -> dict[str, Path]:
    """Return slides by their id, the file name without its last suffix.

    Raises:
        SlideError: two slides have one id, so that their bags would have one name.
    """
    by_id: dict[str, Path] = {}
    for path in slides:
        other = by_id.setdefault(path.stem, path)
        if other != path:
            raise SlideError(f"{other} and {path} have the same name {path.stem!r}; rename one or extract them apart")
    return by_id


def _slides_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        pyramids = {f"{Path(name).stem}_files" for name in names if name.lower().endswith(".dzi")}
        # Removed here, they are not entered: a pyramid can hold a million files.
        folders[:] = [name for name in folders if name not in pyramids]
        yield from (file for name in names if _looks_like_a_slide(file := Path(place, name)))


def _looks_like_a_slide(path: Path) -> bool:
    return path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith(".") and path.is_file()
