"""What a user means by files, folders, manifests and addresses: one `SlideInput` for each slide.

Names only: no slide is opened here.
"""

import csv
import fnmatch
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from wsi_mivpg.atomic import write_text
from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.address import is_address, named_path, shown_address
from wsi_mivpg.slides.readers.patch_folder import PatchFolder, find_patch_slides

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".qptiff", ".czi"}
    | {".dcm", ".dicom", ".dzi"}
)
"""What is picked from a folder."""
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""What is picked from a folder of pictures."""
_MANIFEST_SUFFIX = ".csv"


@dataclass(frozen=True)
class SlideInput:
    """One slide to be read.

    Attributes:
        slide_id: its name, and its bag's.
        source: its file, its address, or the folder of its patches.
        case_id: the case it belongs to, or "".
        mpp: microns per pixel of level 0 (of the patches) as a manifest states them; wins over all else.
        patches: its patches, where there is no slide.
        is_picture: whether it is no slide but a picture that an encoder takes whole.
    """

    slide_id: str
    source: Path | str
    case_id: str = ""
    mpp: float | None = None
    patches: PatchFolder | None = None
    is_picture: bool = False

    @property
    def shown(self) -> str:
        """What messages call it: the path, or the address without secrets."""
        return str(self.source) if isinstance(self.source, Path) else shown_address(self.source)


def slide_input(source: Path | str) -> SlideInput:
    """Return a file or address (text with `://`) as an input, named as the file without its last suffix."""
    if isinstance(source, str) and is_address(source):
        return SlideInput(named_path(source).stem, source)
    return SlideInput(PurePath(source).stem, Path(source))


def find_slides(
    inputs: Iterable[Path | str], *, pattern: str | None = None, patches: bool = False, pictures: bool = False
) -> list[SlideInput]:
    """Return the slides meant by `inputs`: files, folders with all below them, CSV manifests and addresses.

    Folders give their slides in name order. Hidden files are left out; a slide named twice is returned once.

    A file that is named is taken whatever its suffix, so a PNG, JPEG or BMP can be a slide. From a folder such
    pictures are not picked unless `pattern` says so: beside slides they are far more often thumbnails and labels. Nor
    are the tiles of a DeepZoom pyramid: `X_files` beside `X.dzi` is left out.

    Args:
        inputs: a `Path` is never an address; text with `://` is one.
        pattern: which files of a folder are slides, such as `*.png` or `*/HE/*`, in place of the known suffixes;
            compared with the name and with the path below the folder.
        patches: folders hold patches that were cut before (`find_patch_slides`), not slides.
        pictures: all inputs are pictures to be taken whole, and folders hold such (`PICTURE_SUFFIXES`), not slides.

    Raises:
        SlideError: a path does not exist, a folder holds nothing of the kind, or a manifest is malformed.
    """
    found: dict[Path | str, SlideInput] = {}
    suffixes = PICTURE_SUFFIXES if pictures else SLIDE_SUFFIXES
    for given in inputs:
        for slide in _meant_by(given, pattern, patches, suffixes):
            key = slide.source if slide.patches is None else f"{slide.source}//{slide.slide_id}"
            found.setdefault(key, replace(slide, is_picture=pictures))
    return list(found.values())


def unique_ids(slides: Iterable[SlideInput]) -> None:
    """Check that no two slides have one id, so that their bags would have one name.

    Raises:
        SlideError: two have.
    """
    by_id: dict[str, SlideInput] = {}
    for slide in slides:
        other = by_id.setdefault(slide.slide_id, slide)
        if other != slide:
            raise SlideError(
                f"{other.shown} and {slide.shown} have the same name {slide.slide_id!r}; rename one, extract them "
                "apart, or name them in a CSV with the columns slide_id,path"
            )


def read_manifest(path: Path) -> list[SlideInput]:
    """Read a CSV with the columns ``slide_id,path`` and, if wanted, ``case_id`` and ``mpp``.

    Relative paths are below the CSV's folder. That slides exist is not checked: a missing one fails by itself later.

    Raises:
        SlideError: the file is missing or malformed; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"slide_id", "path"} <= set(reader.fieldnames or ()):
                raise SlideError(f"{path}: the columns are {reader.fieldnames}; it needs slide_id,path")
            slides = [_manifest_row(row, path, reader.line_num) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SlideError(
            f"{path}: cannot be read as CSV ({error}); give a file with the columns slide_id,path"
        ) from error
    if not slides:
        raise SlideError(f"{path}: no slides in it; give one line for each below slide_id,path")
    return slides


def write_manifest(path: Path, slides: Sequence[SlideInput]) -> None:
    """Write slides as `read_manifest` reads them: ids, cases, resolutions, and paths relative to the CSV's folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("slide_id", "path", "case_id", "mpp"))
    folder = path.parent.resolve()
    for slide in slides:
        place = slide.source
        if isinstance(place, Path):
            # The file's own name is kept where it is a link: it may be called by its hash elsewhere.
            place = os.path.relpath(place.parent.resolve() / place.name, folder)
        writer.writerow((slide.slide_id, place, slide.case_id, "" if slide.mpp is None else slide.mpp))
    write_text(path, text.getvalue())


def _manifest_row(row: dict[str, str], path: Path, line: int) -> SlideInput:
    slide_id, source = (row["slide_id"] or "").strip(), (row["path"] or "").strip()
    if not slide_id or not source or "/" in slide_id or slide_id.startswith("."):
        raise SlideError(
            f"{path}, line {line}: slide_id {slide_id!r}, path {source!r}; both are needed, and the id names the bag, "
            "so it has no / and does not begin with a dot"
        )
    text = (row.get("mpp") or "").strip()
    try:
        mpp = float(text) if text else None
    except ValueError as error:
        raise SlideError(f"{path}, line {line}: mpp is {text!r}; give a number such as 0.25, or nothing") from error
    place = source if is_address(source) else path.parent / source
    return SlideInput(slide_id, place, (row.get("case_id") or "").strip(), mpp)


def _meant_by(given: Path | str, pattern: str | None, patches: bool, suffixes: frozenset[str]) -> list[SlideInput]:
    if isinstance(given, str) and is_address(given):
        return [slide_input(given)]
    path = Path(given)
    if not path.exists():
        raise SlideError(f"{path}: no such file or folder; check the path")
    if path.is_dir() and patches:
        return [SlideInput(one.slide_id, path, patches=one) for one in find_patch_slides(path)]
    if path.is_dir():
        inside = sorted(_slides_below(path, pattern, suffixes))
        if not inside:
            known = f"the pattern is {pattern}" if pattern else f"known are {' '.join(sorted(suffixes))}"
            what = "pictures" if suffixes is PICTURE_SUFFIXES else "slides"
            raise SlideError(f"{path}: no {what} in this folder; {known}")
        return [slide_input(file) for file in inside]
    if path.suffix.lower() == _MANIFEST_SUFFIX:
        return read_manifest(path)
    return [slide_input(path)]


def _slides_below(folder: Path, pattern: str | None, suffixes: frozenset[str]) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        pyramids = {f"{Path(name).stem}_files" for name in names if name.lower().endswith(".dzi")}
        # Removed here, they are not entered: a pyramid can hold a million files.
        folders[:] = [name for name in folders if name not in pyramids and not name.startswith(".")]
        for name in names:
            file = Path(place, name)
            if not name.startswith(".") and _is_wanted(file, folder, pattern, suffixes) and file.is_file():
                yield file


def _is_wanted(file: Path, folder: Path, pattern: str | None, suffixes: frozenset[str]) -> bool:
    if pattern is None:
        return file.suffix.lower() in suffixes
    return fnmatch.fnmatch(file.name, pattern) or fnmatch.fnmatch(str(file.relative_to(folder)), pattern)
