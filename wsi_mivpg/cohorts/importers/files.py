"""Finds the slides, pictures and bags of cases in folders, by their names; what is not found is counted, never hidden.

Names only: no file but a CSV, which may or may not be a bag, is looked into.
"""

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_mivpg.bags.layouts import is_candidate
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.records import PICTURE_SUFFIXES, SLIDE_SUFFIXES, Reading, Record
from wsi_mivpg.errors import CohortError

_BORDERS = "._-/ "
"""What may follow a prefix in a name, so that `case_1` is not found in `case_10`."""


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        cases: those of which files were found where folders were given, else all.
        left_out: reason -> how many cases, entries or files.
        incomplete: ids of cases of which some files that the data set names were not found.
    """

    cases: tuple[Case, ...]
    left_out: dict[str, int]
    incomplete: tuple[str, ...]


@dataclass(frozen=True)
class FileIndex:
    """A folder's files by name: a file is known by its stem and by its stem with one and two folders before it."""

    folder: Path
    names: tuple[str, ...]
    paths: tuple[Path, ...]

    def named(self, name: str) -> list[Path]:
        """Return the files of that name, in name order."""
        return self._between(name, lambda found: found == name)

    def beginning(self, prefix: str) -> list[Path]:
        """Return the files whose name is `prefix`, or goes on after it with one of ``. _ - /`` or a space."""
        return self._between(prefix, lambda found: found == prefix or found[len(prefix)] in _BORDERS)

    def _between(self, start: str, fits: Callable[[str], bool]) -> list[Path]:
        found = []
        for index in range(bisect_left(self.names, start), len(self.names)):
            if not self.names[index].startswith(start):
                break
            if fits(self.names[index]):
                found.append(self.paths[index])
        return sorted(dict.fromkeys(found))


def index_files(folder: Path, is_wanted: Callable[[Path], bool]) -> FileIndex:
    """List a folder and all below it; hidden files and folders are left out.

    Raises:
        CohortError: there is no such folder, or nothing of the kind is in it.
    """
    if not folder.is_dir():
        raise CohortError(f"{folder}: no such folder; check the path")
    pairs = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith("_files")]
        above = Path(place).relative_to(folder).parts[-2:]
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and is_wanted(path):
                pairs += [("/".join([*above[len(above) - k :], path.stem]), path) for k in range(len(above) + 1)]
    if not pairs:
        raise CohortError(f"{folder}: nothing of the kind in this folder; check the path")
    pairs.sort()
    return FileIndex(folder, tuple(name for name, _ in pairs), tuple(path for _, path in pairs))


def attach_files(reading: Reading, *, bags: Path | None = None, images: Path | None = None) -> Imported:
    """Give the cases their slides or pictures from `images` and their bags from `bags`.

    A case of which a given folder has nothing is left out and counted.

    Raises:
        CohortError: a folder is missing or empty, two files have one name, or no case is left.
    """
    bag_index = None if bags is None else index_files(bags, is_candidate)
    image_index = None if images is None else index_files(images, _is_image)
    left_out = Counter(reading.left_out)
    used: set[Path] = set()
    cases, incomplete = [], []
    for record in reading.records.values():
        found = [_files_of(record, index) if index else ([], 0) for index in (bag_index, image_index)]
        used |= {path for paths, _ in found for path in paths}
        if bag_index and not found[0][0]:
            left_out[f"cases without a bag in {bags}"] += 1
        elif image_index and not found[1][0]:
            left_out[f"cases without a file in {images}"] += 1
        else:
            cases.append(_with_files(record, found[0][0], found[1][0]))
            if any(missing for _, missing in found):
                incomplete.append(record.case.case_id)
    for index in (bag_index, image_index):
        if index and (spare := len(set(index.paths) - used)):
            left_out[f"files of no case in {index.folder}"] += spare
    if not cases:
        raise CohortError(f"no case is left ({_told(left_out)}); are these the right file and folders?")
    return Imported(tuple(cases), dict(left_out), tuple(incomplete))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SLIDE_SUFFIXES | PICTURE_SUFFIXES


def _files_of(record: Record, index: FileIndex) -> tuple[list[Path], int]:
    """Return the files of a case, and how many of its names led to none while others did."""

    def fitting(paths: Iterable[Path]) -> list[Path]:
        return [path for path in paths if record.contains in path.name]

    found: list[Path] = []
    for name in record.names:
        # `extract` writes all bags into one folder, where no two have one name: the folders of the pictures are gone.
        flat = (path for path in index.named(name.rpartition("/")[2]) if path.parent == index.folder)
        same = fitting(index.named(name)) or fitting(flat)
        if len(same) > 1:
            raise CohortError(
                f"{index.folder}: {same[0]} and {same[1]} are both called {name!r}; give the folder of one encoder, or "
                "of one set of files"
            )
        found += same
    if found:
        return found, len(record.names) - len(found)
    for prefix in record.prefixes:
        if found := fitting(index.beginning(prefix)):
            break
    return found, 0


def _with_files(record: Record, bags: Sequence[Path], images: Sequence[Path]) -> Case:
    case = record.case
    if bags:
        case = case.with_bags(bags)
    if images and record.are_pictures:
        return replace(case, image_paths=tuple(images))
    return replace(case, slide_paths=tuple(images)) if images else case


def _told(left_out: Counter[str]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "the file states none"
