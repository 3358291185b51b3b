"""``reports.jsonl`` of a folder while a run writes it: a line for each case, whole and only once, whatever happens.

A killed run leaves at most a torn last line, which the next one cuts. What is in a report is not looked at here.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from wsi_mivpg.atomic import replaced
from wsi_mivpg.errors import OutputError
from wsi_mivpg.reports.report import Report, iterate_jsonl

REPORTS = "reports.jsonl"
_LOCK = ".reports.lock"
_EXCHANGE_SHARE = 20
"""Times as long as an exchange of the file took go by before the next."""
_PLACES = (".", "evidence", "thumbnails")


class Records:
    """The reports of a folder, held by one run; see `held_records`.

    Attributes:
        path: the file.
        hashes: case id -> `Report.settings_hash` of each case that has a line.
        evidence: case id -> `Report.evidence`, likewise.
    """

    def __init__(self, path: Path) -> None:
        """Cut a torn last line, remove what else a killed run left half, and read which cases are there.

        Raises:
            TextsError: a line is not a report of this version.
            OutputError: the file cannot be written.
        """
        self.path = path
        self.hashes: dict[str, str | None] = {}
        self.evidence: dict[str, str | None] = {}
        self._waiting: dict[str, bytes] = {}
        self._exchange_s, self._exchanged = 0.0, time.monotonic()
        for leftover in (file for place in _PLACES for file in (path.parent / place).glob(".*.tmp")):
            leftover.unlink(missing_ok=True)
        if path.exists():
            _cut_torn_line(path)
            for report in iterate_jsonl(path):
                self._note(report)

    def __len__(self) -> int:
        return len(self.hashes)

    def add(self, report: Report) -> None:
        """Write a case's line: a new case's is on the disk when this returns.

        A line that takes an older one's place may wait for `settle`, the older one standing: exchanging the file costs
        as much as the file is long, and is done when a twentieth of the time may go to it.

        Raises:
            OutputError: it cannot be written; the lines before it are whole.
        """
        line = f"{report.model_dump_json()}\n".encode()
        if report.case_id not in self.hashes:
            self._append(line)
        else:
            self._waiting[report.case_id] = line
            if time.monotonic() - self._exchanged >= _EXCHANGE_SHARE * self._exchange_s:
                self.settle()
        self._note(report)

    def settle(self) -> None:
        """Write the lines that wait, each in the place of its case's older one.

        Raises:
            OutputError: they cannot be written; the older ones stand.
        """
        if not self._waiting:
            return
        started = time.monotonic()
        self._exchange()
        self._exchanged = time.monotonic()
        self._exchange_s = self._exchanged - started

    def _note(self, report: Report) -> None:
        self.hashes[report.case_id] = report.settings_hash
        self.evidence[report.case_id] = report.evidence

    def _append(self, line: bytes) -> None:
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab", buffering=0) as stream:
                if stream.write(line) != len(line):  # the disk took a part and is full
                    os.truncate(self.path, before)
                    raise OutputError(f"cannot write {self.path}: the disk is full; free space there, and run again")
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error}; free space there, and run again") from error

    def _exchange(self) -> None:
        """Write the file anew without the older lines; at no moment is there none of a case, or two."""
        try:
            with replaced(self.path) as temporary, temporary.open("wb") as stream, self.path.open("rb") as earlier:
                for other in earlier:
                    if other.strip() and json.loads(other)["case_id"] not in self._waiting:
                        stream.write(other)
                stream.writelines(self._waiting.values())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error}; free space there, and run again") from error
        self._waiting.clear()


@contextlib.contextmanager
def held_records(folder: Path) -> Iterator[Records]:
    """Yield the reports of a folder to the only run that may write them.

    Raises:
        OutputError: another run is writing there, or the folder cannot be written.
        TextsError: a line is not a report of this version.
    """
    lock = folder / _LOCK
    stream = _locked(lock)
    try:
        records = Records(folder / REPORTS)
        try:
            yield records
        finally:
            records.settle()
    finally:
        lock.unlink(missing_ok=True)
        os.close(stream)


def _locked(path: Path) -> int:
    """Return the descriptor of a locked file that still has this name: its last holder may have removed it."""
    while True:
        try:
            stream = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write in {path.parent}: {error.strerror}; choose another --out") from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(stream), path.stat()):
                    return stream
        except BlockingIOError as error:
            os.close(stream)
            raise OutputError(
                f"another run is writing reports into {path.parent}; wait for it, or choose another --out"
            ) from error
        os.close(stream)


def _cut_torn_line(path: Path) -> None:
    """Cut what stands after the last line's end: a run was killed while it wrote it."""
    try:
        with path.open("r+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            kept = end
            while kept:
                start = max(0, kept - (1 << 16))
                stream.seek(start)
                found = stream.read(kept - start).rfind(b"\n")
                if found >= 0:
                    kept = start + found + 1
                    break
                kept = start
            if kept < end:
                stream.truncate(kept)
                os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another --out") from error
