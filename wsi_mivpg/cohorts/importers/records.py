"""What a data set's file states of its cases, before their slides and bags are looked for.

Importers make these; `files` finds what belongs to them. Nothing here knows a format.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".qptiff", ".czi"}
    | {".dcm", ".dicom", ".dzi"}
)
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
BAG_SUFFIXES = frozenset({".h5", ".hdf5", ".pt", ".pth", ".npy", ".csv"})
_SUFFIXES = SLIDE_SUFFIXES | PICTURE_SUFFIXES | BAG_SUFFIXES


@dataclass(frozen=True)
class Record:
    """A case as its data set states it, and how its files are called.

    Attributes:
        case: without bags.
        names: its slides' names without suffix, with `/` where a folder tells them apart; each is one file.
        prefixes: where no name leads to a file, what its files' names begin with; the first that leads to any counts.
        contains: what a file's name must have in it, such as a stain.
        are_pictures: its files are pictures (patches, photographs), not slides.
    """

    case: Case
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    contains: str = ""
    are_pictures: bool = False


@dataclass
class Reading:
    """What was read: the records by case id, and how many things were left out for which reason."""

    records: dict[str, Record] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, record: Record, source: Path) -> None:
        """Take a case.

        Raises:
            CohortError: one of that id is there already.
        """
        if record.case.case_id in self.records:
            raise CohortError(f"{source}: case {record.case.case_id!r} is there twice; keep one of them")
        self.records[record.case.case_id] = record


def bare_name(text: str) -> str:
    """Return a file's name without its folder and without a suffix that slides, pictures or bags have."""
    name = PurePosixPath(text.strip().replace("\\", "/")).name
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in _SUFFIXES else name


def read_json(path: Path) -> Any:
    """Read JSON, or JSON Lines as a list.

    Raises:
        CohortError: the file is missing or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CohortError(f"{path}: cannot be read ({error}); give the data set's own JSON file") from error
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise CohortError(f"{path}: neither JSON nor JSON Lines ({error}); copy the file again") from error


def objects(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list, each with its place for messages.

    Raises:
        CohortError: it is no list, or one is no object.
    """
    if not isinstance(value, list):
        raise CohortError(f"{where}: {type(value).__name__}, not a list of objects; is it this data set's file?")
    for number, one in enumerate(value, start=1):
        if not isinstance(one, dict):
            raise CohortError(f"{where}, entry {number}: {type(one).__name__}, not an object")
        yield f"{where}, entry {number}", one


def text_of(record: dict[str, Any], key: str, where: str, *, needed: bool = True) -> str:
    """Return a text (numbers become texts), stripped.

    Raises:
        CohortError: it is missing or empty though needed, or is no text.
    """
    value = record.get(key)
    if isinstance(value, list | dict | bool):
        raise CohortError(f"{where}: {key!r} is {type(value).__name__}, not a text")
    text = "" if value is None else str(value).strip()
    if needed and not text:
        raise CohortError(f"{where}: {key!r} is missing or empty; it has {', '.join(record) or 'nothing'}")
    return text
