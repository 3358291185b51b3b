"""What `doctor` found: one `Finding` for each thing, and what its checks of folders share."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wsi_mivpg.errors import WsiMivpgError

SHARED, SCRATCH, BETWEEN = "shared folder", "scratch", "between nodes"
"""What findings about folders are needed for."""

LEAST_FREE_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `way_out` says how to get what is missing, or what to do about it."""

    what: str
    needed_for: str
    ok: bool
    detail: str
    way_out: str = ""


def tried(what: str, needed_for: str, way_out: str, trial: Callable[[], tuple[bool, str]]) -> Finding:
    """Return a finding from what `trial` says; an error in it that is not a bug is a failure."""
    try:
        ok, detail = trial()
    except OSError as problem:
        ok, detail = False, f"failed: {problem.strerror or problem}"
    except WsiMivpgError as problem:
        ok, detail = False, str(problem)
    return Finding(what, needed_for, ok, detail, "" if ok else way_out)


@contextmanager
def work_place(folder: Path, needed_for: str) -> Iterator[Path | Finding]:
    """Yield a subfolder for tries, or what keeps us from making one."""
    try:
        kept = tempfile.TemporaryDirectory(prefix=".wsi-mivpg-doctor-", dir=folder, ignore_cleanup_errors=True)
    except OSError as problem:
        detail = f"cannot write there: {problem.strerror}"
        yield Finding(str(folder), needed_for, False, detail, "name a folder that is there and that you can write")
        return
    with kept as name:
        yield Path(name)


def free_space(folder: Path, needed_for: str) -> Finding:
    about = os.statvfs(folder)
    free_gb = about.f_bavail * about.f_frsize / 1e9
    files = f", {about.f_favail:,} files" if about.f_files else ""
    ok = free_gb >= LEAST_FREE_GB and (about.f_files == 0 or about.f_favail > 0)
    way_out = "" if ok else "free space, or name another folder; docs/scale.md says how much bags take"
    return Finding("free there", needed_for, ok, f"{free_gb:,.1f} GB{files}", way_out)
