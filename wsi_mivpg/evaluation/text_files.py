"""The forms in which tools write texts to files: JSON Lines, CSV, Parquet, JSON lists and objects, R2Gen's columns.

Each line or item becomes an `Entry`; `readers` gathers them by id.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_mivpg.cohorts.tables import Problems, read_rows
from wsi_mivpg.errors import CohortError, TextsError

MAX_CHARACTERS = 100_000
"""Longest text that is scored; a report has a few thousand characters."""

_ID_KEYS = ("case_id", "id", "image_id")
_TEXT_KEYS = ("text", "report", "reports", "texts", "caption")
_BAG_KEYS = ("bags", "bag", "bag_path")
_PATIENT_KEYS = ("patient_id", "patient")
_FORMS = ".jsonl, .csv, .parquet or .json"
_LONGEST_CELL = 1 << 28  # the csv module's own limit is less than a manifest's paths can need
_SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """One line of a file: where it stands, whose it is, its texts, and everything else that the line says."""

    where: str
    case_id: str
    texts: tuple[str, ...]
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def patient_id(self) -> str | None:
        """The patient that the line names."""
        return next((str(self.record[key]) for key in _PATIENT_KEYS if self.record.get(key)), None)

    @property
    def bag_names(self) -> tuple[str, ...]:
        """The paths of bags that the line names, as a list or with ; between them."""
        named = next((self.record[key] for key in _BAG_KEYS if self.record.get(key)), ())
        parts = named.split(";") if isinstance(named, str) else map(str, named)
        return tuple(part.strip() for part in parts if part.strip())


def read_entries(path: Path) -> tuple[list[Entry], bool]:
    """Return what a file says, in order, and whether it has no ids, so that positions stand for them.

    Raises:
        TextsError: the file is missing, of another kind, not UTF-8 or malformed; an empty one gives no entries.
    """
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return [_entry(f"{path}, line {n}", record) for n, record in _json_lines(path)], False
    if kind == ".json":
        return _from_json(path)
    if kind == ".csv":
        return _from_csv(path)
    if kind == ".parquet":
        return _from_parquet(path), False
    raise TextsError(f"{path}: {kind or 'a file without an ending'} is not read; give {_FORMS}")


def _from_json(path: Path) -> tuple[list[Entry], bool]:
    content = _content(path)
    value = _parsed(content, str(path)) if content.strip() else []
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        value = value["annotations"]
    if isinstance(value, dict):
        return [
            Entry(str(path), name, _texts(found, f"{path}: the text of {name!r}")) for name, found in value.items()
        ], False
    if not isinstance(value, list):
        raise TextsError(f"{path} is a JSON {type(value).__name__}; give an object of ids or a list")
    if value and all(isinstance(item, str) for item in value):
        return [
            Entry(f"{path}, item {n}", str(n), _texts(item, f"{path}, item {n}")) for n, item in enumerate(value)
        ], True
    return [_entry(f"{path}, item {n}", item) for n, item in enumerate(value)], False


def _from_csv(path: Path) -> tuple[list[Entry], bool]:
    content = _content(path)
    csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(content, newline=""), delimiter=_delimiter(content), strict=True)
        every = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise TextsError(f"{path} is not CSV: {error}; quote texts") from error
    rows = [(line, row) for line, row in every if row]
    if not rows:
        return [], False
    header = [name.strip() for name in rows[0][1]]
    known = {name.lower() for name in header}
    if len(header) == 1 and not known & {*_ID_KEYS, *_TEXT_KEYS} and all(len(row) == 1 for _, row in rows):
        # An empty line is an empty text here: left out, it would move all texts after it to other positions.
        return [
            Entry(f"{path}, line {line}", str(n), _texts(row[0] if row else "", f"{path}, line {line}"))
            for n, (line, row) in enumerate(every)
            if line <= rows[-1][0]
        ], True
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise TextsError(f"{path}, line {line} has {len(row)} cells and the header has {len(header)}; quote texts")
    keys = list(map(_key, header))
    return [
        _entry(f"{path}, line {line}", {key: _cell(key, value) for key, value in zip(keys, row, strict=True)})
        for line, row in rows[1:]
    ], False


def _from_parquet(path: Path) -> list[Entry]:
    try:
        rows = read_rows(path, Problems(path))
    except CohortError as error:
        raise TextsError(str(error)) from error
    return [
        _entry(f"{path}, row {number}", {(key := _key(name)): _cell(key, value) for name, value in row.items()})
        for number, row in rows
    ]


def _delimiter(content: str) -> str:
    """A comma, or what stands in its place in a header that names an id or a text."""
    header = content.lstrip().partition("\n")[0]
    for mark in ",;\t":
        names = [name.strip(' "\r').lower() for name in header.split(mark)]
        if len(names) > 1 and {*names} & {*_ID_KEYS, *_TEXT_KEYS}:
            return mark
    return ","


def _key(name: str) -> str:
    return name.lower() if name.lower() in {*_ID_KEYS, *_TEXT_KEYS, *_PATIENT_KEYS, "split"} else name


def _cell(key: str, value: Any) -> Any:
    """A cell of a table; manifests hold lists of reports and truths as JSON."""
    opening = {"reports": "[", "texts": "[", "bags": "[", "truth": "{"}.get(key)
    if opening and isinstance(value, str) and value.startswith(opening):
        try:
            return json.loads(value)
        except ValueError:
            return value  # a report may begin with a bracket
    return value


def _json_lines(path: Path) -> list[tuple[int, Any]]:
    lines = enumerate(_content(path).split("\n"), 1)
    return [(n, _parsed(line, f"{path}, line {n}")) for n, line in lines if line.strip()]


def _entry(where: str, record: Any) -> Entry:
    if not isinstance(record, dict):
        raise TextsError(f"{where} is a JSON {type(record).__name__}; give an object with an id and a text")
    name = next((str(record[key]) for key in _ID_KEYS if record.get(key) not in (None, "")), None)
    if name is None:
        raise TextsError(f"{where} has no {' or '.join(_ID_KEYS)}; it has {listed(list(record)) or 'nothing'}")
    value = next((record[key] for key in _TEXT_KEYS if record.get(key) is not None), None)
    if value is None:
        if empty := [key for key in _TEXT_KEYS if key in record]:
            raise TextsError(f"{where}: the {empty[0]} of {name!r} is null; give a text, which may be empty")
        raise TextsError(f"{where} has none of {', '.join(_TEXT_KEYS)}; it has {listed(list(record))}")
    return Entry(where, name, _texts(value, f"{where}: the text of {name!r}"), record)


def _texts(value: Any, what: str) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise TextsError(f"{what} is {type(value).__name__}; give a text or a list of texts")
    for text in found:
        if len(text) > MAX_CHARACTERS:
            raise TextsError(
                f"{what} has {len(text):,} characters; shorten it to {MAX_CHARACTERS:,} or leave the case out"
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextsError(
                f"{what} holds half a character at {error.start}; write the file again as UTF-8"
            ) from error
    return tuple(found)


def _parsed(text: str, where: str) -> Any:
    def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise TextsError(f"{where} has {listed(twice)} more than once; JSON keeps one of them only: keep one")
        return found

    try:
        return json.loads(text, object_pairs_hook=once_each)
    except json.JSONDecodeError as error:
        raise TextsError(f"{where} is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise TextsError(f"{where} is nested too deeply to be a list of reports") from error


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextsError(
            f"cannot read texts from {path}: byte {error.start} is not UTF-8; save it as UTF-8 "
            f"(iconv -f latin1 -t utf-8, if that is what it is)"
        ) from error
    except OSError as error:
        raise TextsError(f"cannot read texts from {path}: {error}; give a UTF-8 {_FORMS}") from error


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
