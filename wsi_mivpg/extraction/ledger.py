"""What became of each slide, in files that a person reads in the morning: status.csv, failures.csv, summary.md.

Several runs may share a folder: each merges its own rows into what is there, under a lock.
"""

import csv
import fcntl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from wsi_mivpg.atomic import replaced, write_text
from wsi_mivpg.errors import OutputError
from wsi_mivpg.slides.address import is_address

State = Literal["done", "kept", "failed", "elsewhere"]
_SECONDS_BETWEEN_WRITES = 5.0
_SHARE_OF_TIME = 0.05
"""Of a run, at most, that goes into bringing status.csv up to date, which takes seconds in a folder of 100,000."""
_LOCK = ".status.lock"
_FILES = ("status.csv", "failures.csv", "summary.md")


@dataclass(frozen=True)
class StatusRow:
    """One slide's line in status.csv.

    Attributes:
        slide_id, path, case_id: which slide.
        state: "done" now, "kept" from before, "failed", or "elsewhere": another run is doing it.
        n_tiles: in the bag.
        n_unreadable: planned tiles that could not be decoded.
        seconds: from opening to the bag's last byte; other slides run beside it.
        mpp: microns per pixel of level 0, "" where unknown.
        reader: who read it.
        message: why it failed, who has it, or what to know about it.
    """

    slide_id: str
    path: str
    case_id: str
    state: State
    n_tiles: int = 0
    n_unreadable: int = 0
    seconds: float = 0.0
    mpp: str = ""
    reader: str = ""
    message: str = ""


class Ledger:
    """The three files of a folder of bags."""

    def __init__(self, folder: Path, lost_inputs: Mapping[str, str] | None = None) -> None:
        """`lost_inputs`: what was named but is no slide, and why; failures.csv has it too."""
        self._folder = folder
        self._lost = dict(lost_inputs or {})
        self._guard = threading.Lock()
        self._fresh: dict[str, StatusRow] = {}
        self._written_at = 0.0
        self._write_took_s = 0.0

    def record(self, row: StatusRow) -> None:
        """Note what became of a slide; status.csv is brought up to date now and then.

        Raises:
            OutputError: it cannot be written.
        """
        with self._guard:
            self._fresh[row.slide_id] = row
        if time.monotonic() - self._written_at >= max(_SECONDS_BETWEEN_WRITES, self._write_took_s / _SHARE_OF_TIME):
            self.write()

    def write(self) -> list[StatusRow]:
        """Bring status.csv and failures.csv up to date; return all rows, also those of other runs.

        Raises:
            OutputError: they cannot be written.
        """
        started = time.monotonic()
        with _locked(self._folder / _LOCK):
            rows = self._merged()
        self._write_took_s = time.monotonic() - started  # waiting for other runs counts: together they must not queue
        return rows

    def _merged(self) -> list[StatusRow]:
        """Write status.csv and failures.csv with this run's rows; for whoever holds the lock."""
        path = self._folder / "status.csv"
        for name in _FILES:
            for leftover in self._folder.glob(f".{name}.*.tmp"):
                leftover.unlink(missing_ok=True)  # of a run that was killed while it wrote
        rows = {row.slide_id: row for row in read_status(path) if row.state != "failed" or _is_there(row.path)}
        with self._guard:
            fresh = dict(self._fresh)
        for slide_id, row in fresh.items():
            if row.state != "elsewhere" or slide_id not in rows:
                rows[slide_id] = row
        _write_csv(path, [field.name for field in fields(StatusRow)], [asdict(row) for row in rows.values()])
        failed = {row.path: row.message for row in rows.values() if row.state == "failed"}
        write_failures(self._folder / "failures.csv", {**failed, **self._lost})
        self._written_at = time.monotonic()
        return list(rows.values())

    def summarise(self, lines: list[str]) -> None:
        """Write all files, with `lines` about this run in summary.md.

        Raises:
            OutputError: they cannot be written.
        """
        with _locked(self._folder / _LOCK):
            self._write_summary(self._merged(), lines)

    def _write_summary(self, rows: list[StatusRow], lines: list[str]) -> None:
        counts = {state: sum(row.state == state for row in rows) for state in ("done", "kept", "failed", "elsewhere")}
        unreadable = [row for row in rows if row.n_unreadable]
        empty = [row for row in rows if row.state in ("done", "kept") and row.n_tiles == 0]
        text = ["# Extraction", "", *(f"- {line}" for line in lines), ""]
        text += [f"All slides of this folder: {', '.join(f'{n} {state}' for state, n in counts.items() if n)}.", ""]
        for title, chosen in (
            ("Failed", [row for row in rows if row.state == "failed"]),
            ("Left to other runs", [row for row in rows if row.state == "elsewhere"]),
            ("Without tissue", empty),
            ("With tiles that could not be read", unreadable),
        ):
            if chosen:
                text += [f"## {title}", ""]
                text += [f"- `{row.slide_id}` {row.message or row.path}".rstrip() for row in chosen] + [""]
        path = self._folder / "summary.md"
        try:
            write_text(path, "\n".join(text))
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error}; free space there, or choose another --out") from error


def read_status(path: Path) -> list[StatusRow]:
    """Return the rows of a status.csv, [] where there is none or it is not one of ours."""
    kinds = {field.name: field.type for field in fields(StatusRow)}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if set(reader.fieldnames or ()) != set(kinds):
                return []
            numbers = {"n_tiles": int, "n_unreadable": int, "seconds": float}
            return [StatusRow(**{name: numbers.get(name, str)(value) for name, value in row.items()}) for row in reader]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def _is_there(shown: str) -> bool:
    """Return whether a failed slide still is where it was; one that was taken away has failed no more."""
    return is_address(shown) or Path(shown).exists()


def write_failures(path: Path, failures: Mapping[str, str]) -> None:
    """Write failures as CSV (slide, error), or remove the file of an earlier run where there are none."""
    if failures:
        _write_csv(path, ["slide", "error"], [{"slide": name, "error": error} for name, error in failures.items()])
    else:
        path.unlink(missing_ok=True)


def _write_csv(path: Path, columns: list[str], rows: Sequence[Mapping[str, object]]) -> None:
    try:
        with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}; free space there, or choose another --out") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        stream = path.open("a")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another --out") from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
