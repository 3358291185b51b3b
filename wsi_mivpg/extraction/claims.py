"""Who does which slide, where several runs write into one folder: exclusive claim files with a heartbeat.

A claim is `<folder>/.claims/<slide id>`: JSON with host and process. Its owner touches it every few seconds; a claim
whose process is gone, or that nobody has touched for long, is dead and may be taken over.
"""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from wsi_mivpg.errors import OutputError

HEARTBEAT_S = 10.0
DEAD_AFTER_S = 120.0
_FOLDER = ".claims"
_LOCK = ".lock"


class Claims:
    """The claims that this run holds in a folder of bags; a context manager that gives all of them back."""

    def __init__(self, folder: Path, *, heartbeat_s: float = HEARTBEAT_S, dead_after_s: float = DEAD_AFTER_S) -> None:
        self.folder = folder / _FOLDER
        self._dead_after_s = dead_after_s
        self._me = _this_process()
        self._held: set[str] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(heartbeat_s,), name="claims", daemon=True)

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot write in {self.folder.parent}: {error.strerror}; choose another --out"
            ) from error
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._heart.join()
        for slide_id in list(self._held):
            self.release(slide_id)
        with suppress(OSError):
            self.folder.rmdir()  # only where it is empty; a lock that somebody may wait for is never removed

    def take(self, slide_id: str, *, from_the_dead: bool = False) -> bool:
        """Claim a slide; false where another run has it. Dead claims are taken over only with `from_the_dead`.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self.folder / slide_id
        try:
            with self._guard:
                if self._create(path) or (from_the_dead and self._take_over(path)):
                    self._held.add(slide_id)
                    return True
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another --out") from error
        return False

    def release(self, slide_id: str) -> None:
        """Give a claim back, unless it was taken over because this run was thought dead."""
        with self._guard:
            self._held.discard(slide_id)
            path = self.folder / slide_id
            if _content(path) == self._me:
                path.unlink(missing_ok=True)

    def holder(self, slide_id: str) -> str | None:
        """Return "host, process N" of whoever holds a slide's claim, dead or alive; None where it is free."""
        content = _content(self.folder / slide_id)
        if content is None:
            return None
        return f"{content.get('host', 'unknown host')}, process {content.get('pid', 'unknown')}"

    def is_dead(self, slide_id: str) -> bool:
        """Return whether a claim's process on this host is gone, or its heartbeat stopped long ago."""
        return self._is_dead(self.folder / slide_id)

    def _create(self, path: Path) -> bool:
        """Make a claim, whole from the moment it has its name: one torn by a kill would be nobody's until it is old."""
        writing = self.folder / f".{uuid.uuid4().hex}.tmp"
        writing.write_text(json.dumps(self._me))
        try:
            os.link(writing, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return self._create_in_place(path)
        finally:
            writing.unlink()
        return True

    def _create_in_place(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as stream:
            json.dump(self._me, stream)
        return True

    def _take_over(self, path: Path) -> bool:
        # Under a lock, so that of two runs that see the same dead claim one only replaces it.
        with self._locked():
            if not self._is_dead(path):
                return False
            path.unlink(missing_ok=True)
            return self._create(path)

    def _is_dead(self, path: Path) -> bool:
        try:
            age_s = self._now_there() - path.stat().st_mtime
        except FileNotFoundError:
            return True
        content = _content(path)
        if content is not None and content.get("host") == self._me["host"] and not _is_running(content):
            return True
        return age_s > self._dead_after_s

    def _now_there(self) -> float:
        """Return the time by the clock that stamps files in the folder, which may be a server's."""
        probe = self.folder / f".now.{uuid.uuid4().hex}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / _LOCK).open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _beat(self, heartbeat_s: float) -> None:
        while not self._stop.wait(heartbeat_s):
            with self._guard:
                for slide_id in self._held:
                    with suppress(OSError):  # a folder that is lost for a moment
                        os.utime(self.folder / slide_id)


def _this_process() -> dict[str, object]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "since": round(time.time(), 3)}


def _started(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot, or None where none runs under that number.

    One that was killed keeps its number until its parent has asked how it ended, if ever: it does not run.
    """
    try:
        # From field 3, the state; the name, field 2, may hold spaces and brackets.
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after_name[0] in ("Z", "X") else int(after_name[19])
    except (OSError, IndexError, ValueError):
        return None


def _is_running(content: dict[str, object]) -> bool:
    pid = content.get("pid")
    return isinstance(pid, int) and _started(pid) is not None and _started(pid) == content.get("started")


def _content(path: Path) -> dict[str, object] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
