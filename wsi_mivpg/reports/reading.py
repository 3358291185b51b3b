"""Reads reports from what `wsi-mivpg report` wrote, one by one: a bad record is a value, not the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wsi_mivpg.errors import TextsError
from wsi_mivpg.reports.html import file_name
from wsi_mivpg.reports.report import Report, parse_report, read_json

LISTED = "reports.jsonl"


class Record(NamedTuple):
    """One place where a report should be: the report, or what is wrong with it.

    Attributes:
        place: file, and line where it is one of several, for messages.
        folder: what names of files in the report are relative to.
        found: the report, or the error.
    """

    place: str
    folder: Path
    found: Report | TextsError


def records(path: Path) -> Iterator[Record]:
    """Yield the reports of a ``.json``, a ``.jsonl``, or a folder that `wsi-mivpg report` wrote.

    In a folder, ``reports.jsonl`` says which cases there are, and the JSON beside a case's page, which `explain` brings
    up to date, is what is read. Without ``reports.jsonl`` every ``*.json`` is taken for a report.
    """
    if not path.is_dir():
        yield from _of_lines(path) if path.suffix == ".jsonl" else [_of_file(path)]
        return
    listed = path / LISTED
    if listed.is_file():
        for record in _of_lines(listed):
            of_case = isinstance(record.found, Report) and _beside(path, record.found)
            yield _of_file(of_case) if of_case else record
        return
    files = sorted(path.glob("*.json"))
    if not files:
        problem = TextsError(f"{path}: neither {LISTED} nor *.json is in it; name the folder that `report` wrote")
        yield Record(str(path), path, problem)
    yield from map(_of_file, files)


def _of_file(path: Path) -> Record:
    try:
        return Record(str(path), path.parent, read_json(path))
    except TextsError as problem:
        return Record(str(path), path.parent, problem)


def _of_lines(path: Path) -> Iterator[Record]:
    """Yield one record for each line that is not empty; the file is read as they are asked for."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    place = f"{path}, line {number}"
                    yield Record(place, path.parent, _parsed(line, place))
    except OSError as error:
        yield Record(str(path), path.parent, TextsError(f"cannot read reports from {path}: {error.strerror}"))


def _parsed(line: bytes, place: str) -> Report | TextsError:
    try:
        return parse_report(line.decode("utf-8"), place)
    except UnicodeDecodeError as error:
        return TextsError(f"{place} is not UTF-8 ({error.reason}); write it again with `wsi-mivpg report`")
    except TextsError as problem:
        return problem


def _beside(folder: Path, report: Report) -> Path | None:
    path = folder / Path(file_name(report.case_id)).with_suffix(".json")
    return path if path.is_file() else None
