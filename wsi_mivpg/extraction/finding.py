"""Which files are meant when a user names files and folders.

Names only: no file is opened here.
"""

from collections.abc import Iterable
from pathlib import Path

from wsi_mivpg.errors import SlideError

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".qptiff", ".czi"}
    | {".dcm", ".dicom"}
)


def find_slides(inputs: Iterable[Path]) -> list[Path]:
    """Return the slides meant by `inputs`: files as they are named, folders with all below them.

    Folders give their slides in name order. Hidden files are left out; a file named twice is returned once.

    Raises:
        SlideError: a path does not exist, or a folder holds no slide.
    """
    found: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if _looks_like_a_slide(file)]
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


def _looks_like_a_slide(path: Path) -> bool:
    return path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith(".") and path.is_file()
