"""The files of a manifest: rows of CSV, Parquet and JSON Lines, read and written. What a row means is `case`'s matter.

Rows are counted as a spreadsheet shows them: a CSV's header is row 1; a Parquet file's first row and a JSON Lines
file's first line are row 1.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsi_mivpg.atomic import replaced, write_text
from wsi_mivpg.errors import CohortError

SUFFIXES = (".csv", ".parquet", ".jsonl")
_LISTS = frozenset({"slides", "bags", "images", "reports"})
_MOST_SHOWN = 20
_LONGEST_CELL = 1 << 28
"""The csv module's own limit, 128 KiB, is less than a case of two thousand patches needs."""

Row = dict[str, Any]


class Problems:
    """What is wrong with a manifest, collected so that a user can mend all of it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []

    def add(self, row: int, column: str, message: str) -> None:
        """Note a problem; `column` may be "" where the whole row is wrong."""
        self.messages.append(f"{self.path}: row {row}{f', column {column}' if column else ''}: {message}")

    def raise_any(self) -> None:
        """Raise what was noted, at most the first 20.

        Raises:
            CohortError: something was.
        """
        if not self.messages:
            return
        more = len(self.messages) - _MOST_SHOWN
        shown = self.messages[:_MOST_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise CohortError("\n".join(shown))


def read_rows(path: Path, problems: Problems) -> list[tuple[int, Row]]:
    """Return the number and the cells of every row; rows that are no row are noted in `problems` and left out.

    Raises:
        CohortError: the file is missing, of another kind, or cannot be read at all.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_json_lines}
    if path.suffix.lower() not in readers:
        raise CohortError(f"{path}: a manifest is a {', '.join(SUFFIXES)} file; rename or convert it")
    if not path.is_file():
        raise CohortError(f"manifest {path} does not exist; `wsi-mivpg cohorts import` and `cohorts virtual` write one")
    try:
        return readers[path.suffix.lower()](path, problems)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"{path}: cannot be read ({error}); write it as UTF-8 text, or copy it again") from error


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write the rows, whole or not at all; cells that a row lacks are empty.

    Raises:
        CohortError: the suffix is of another kind, or a path in a CSV has the `;` that separates paths.
        OutputError: the folder cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        write_text(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))
    elif suffix == ".csv":
        write_text(path, _as_csv(path, rows, columns))
    elif suffix == ".parquet":
        _write_parquet(path, rows, columns)
    else:
        raise CohortError(f"{path}: a manifest is a {', '.join(SUFFIXES)} file; choose one of these endings")


def _read_json_lines(path: Path, problems: Problems) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                problems.add(number, "", f"no JSON ({error}); each line is one object")
                continue
            if isinstance(record, dict):
                rows.append((number, record))
            else:
                problems.add(number, "", f'{type(record).__name__}, not an object such as {{"case_id": "a"}}')
    return rows


def _read_csv(path: Path, problems: Problems) -> list[tuple[int, Row]]:
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, delimiter=_delimiter(stream.readline()))
        stream.seek(0)
        rows = [(number, cells) for number, cells in enumerate(reader, start=1) if any(map(str.strip, cells))]
    if not rows:
        return []
    names = [name.strip().removeprefix("\ufeff") for name in rows[0][1]]
    if doubled := sorted({name for name in names if names.count(name) > 1 and name}):
        problems.add(rows[0][0], ", ".join(doubled), "is there twice; rename one")
    found = []
    for number, cells in rows[1:]:
        if len(cells) > len(names) and any(map(str.strip, cells[len(names) :])):
            problems.add(number, "", f"{len(cells)} cells below {len(names)} columns; quote texts that have a comma")
        else:
            found.append((number, dict(zip(names, cells, strict=False))))
    return found


def _delimiter(header: str) -> str:
    """A comma, or what spreadsheets of some countries write instead."""
    return next((mark for mark in ",;\t" if mark in header), ",")


def _as_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    # Reports may hold any mark, so several of them are JSON; paths are joined by `;`.
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = []
        for name in columns:
            value = row.get(name)
            if name in _LISTS and name != "reports":
                if any(";" in one for one in value or ()):
                    raise CohortError(f"{path}: a path of case {row['case_id']!r} has a `;`; write .jsonl or .parquet")
                value = ";".join(value or ())
            elif isinstance(value, list | dict):
                value = json.dumps(value, ensure_ascii=False)
            cells.append("" if value is None else value)
        writer.writerow(cells)
    return text.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise CohortError(
            "Parquet manifests need pyarrow: pip install 'wsi-mivpg[parquet]'; or use a .csv or .jsonl manifest"
        ) from error
    return pyarrow, pyarrow.parquet


def _read_parquet(path: Path, problems: Problems) -> list[tuple[int, Row]]:
    arrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, ValueError) as error:
        raise CohortError(f"{path}: not a Parquet file, or a damaged one ({error}); copy it again") from error
    return list(enumerate(table.to_pylist(), start=1))


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    arrow, parquet = _pyarrow()
    kinds = {name: arrow.list_(arrow.string()) if name in _LISTS else arrow.string() for name in columns}
    plain = [
        {name: json.dumps(row[name]) if isinstance(row.get(name), dict) else row.get(name) for name in columns}
        for row in rows
    ]
    with replaced(path) as temporary:
        parquet.write_table(arrow.Table.from_pylist(plain, schema=arrow.schema(list(kinds.items()))), temporary)
