"""What `doctor --shared` tries: whether runs on this node may share a folder.

Everything is done for real, with the calls that the package relies on, in a subfolder that is taken away again. Of
other nodes it knows only the mount options; `doctor_nodes` tries them.
"""

import fcntl
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from wsi_mivpg.atomic import replaced
from wsi_mivpg.cli.finding import SHARED, Finding, free_space, tried, work_place
from wsi_mivpg.cli.mounts import Mount, mount_of

CLOCK_LIMIT_S = 2.0
_ANSWER_S = 60.0
_REPLACEMENTS = 50
_CONTENT_BYTES = 64 * 1024


def shared_findings(folder: Path) -> list[Finding]:
    """Try what runs that share `folder` rely on; of other nodes only `doctor_nodes` can tell."""
    with work_place(folder, SHARED) as place:
        if isinstance(place, Finding):
            return [place]
        mount = mount_of(folder)
        kind = mount.kind if mount.is_network else f"{mount.kind}, this machine's own unless it is exported"
        return [
            Finding(f"file system of {folder}", SHARED, True, kind),
            free_space(folder, SHARED),
            *(check(place) for check in (_replacing, _claiming, _syncing, _hdf5, _clock)),
            _locking(place, mount),
        ]


def _locking(place: Path, mount: Mount) -> Finding:
    """Two processes of this node want one `flock`; mount options say whether other nodes would see it."""
    way_out = "mount it with flock (Lustre) or without nolock and local_lock (NFS), or give each node its own --out"

    def trial() -> tuple[bool, str]:
        path = place / "lock"
        with _helper(_hold_lock, path) as wire:
            answer = _answer(wire)
            if answer != "held":
                return False, f"no lock could be had: {answer}"
            with path.open("a") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return False, "two processes held one lock at the same time"
                except BlockingIOError:
                    pass
                wire.send("release")
                fcntl.flock(stream, fcntl.LOCK_EX)
        if mount.locks_stay_here:
            return False, f"between processes of this node only: mounted with {mount.locks_stay_here}"
        return True, "exclusive between processes of this node; --nodes tries it between nodes"

    return tried("file locks (flock)", SHARED, way_out, trial)


def _replacing(place: Path) -> Finding:
    """One process reads a file again and again while another replaces it: it must always be whole."""

    def trial() -> tuple[bool, str]:
        path = place / "replaced"
        path.write_bytes(b"0" * _CONTENT_BYTES)
        with _helper(_read_meanwhile, path) as wire:
            _answer(wire)
            for number in range(_REPLACEMENTS):
                with replaced(path) as temporary:
                    temporary.write_bytes(b"%d" % (number % 10) * _CONTENT_BYTES)
            wire.send("stop")
            n_reads, problem = _answer(wire)
        if problem:
            return False, f"a reader saw {problem}"
        return True, f"whole in each of {n_reads} reads during {_REPLACEMENTS} replacements"

    return tried("atomic replace", SHARED, "keep bags and reports on a POSIX file system, not in a bucket mount", trial)


def _claiming(place: Path) -> Finding:
    """Of two runs that want one slide, one only may get it."""
    from wsi_mivpg.extraction.claims import Claims

    def trial() -> tuple[bool, str]:
        with Claims(place) as one, Claims(place) as two:
            taken = one.take("slide"), two.take("slide")
            one.release("slide")
            ok = (*taken, two.take("slide")) == (True, False, True)
        return ok, f"one run of two gets it, {_by_what(place)}" if ok else "two runs did not share it as they should"

    return tried("claims of slides", SHARED, "let one run at a time write to a folder there", trial)


def _by_what(place: Path) -> str:
    source = place / "linked"
    source.touch()
    try:
        os.link(source, place / "link")
    except OSError:
        return "by exclusive creation: there are no hard links"
    return "by hard links"


def _syncing(place: Path) -> Finding:
    def trial() -> tuple[bool, str]:
        seconds = []
        for _ in range(9):
            started = time.perf_counter()
            with (place / "synced").open("wb") as stream:
                stream.write(b"0" * 4096)
                stream.flush()
                os.fsync(stream.fileno())
            seconds.append(time.perf_counter() - started)
        return True, f"{statistics.median(seconds) * 1000:.1f} ms for a small file (median of 9)"

    return tried("fsync", SHARED, "files may be lost with a machine there; keep bags elsewhere", trial)


def _hdf5(place: Path) -> Finding:
    """Bags are HDF5, read by several processes at once and memory-mapped."""
    import h5py
    import numpy as np

    def trial() -> tuple[bool, str]:
        path, values = place / "bag.h5", np.arange(1000, dtype=np.float16)
        with h5py.File(path, "w") as file:
            file["features"] = values
            offset = file["features"].id.get_offset()
        with h5py.File(path) as one, h5py.File(path) as two:
            same = np.array_equal(one["features"][...], two["features"][...])
        mapped = np.memmap(path, np.float16, "r", offset, values.shape)
        same = same and np.array_equal(mapped, values)
        return same, "written, opened twice, memory-mapped" if same else "what was read is not what was written"

    return tried("HDF5 and memory maps", SHARED, "set HDF5_USE_FILE_LOCKING=FALSE, or choose another folder", trial)


def _clock(place: Path) -> Finding:
    """The clock that stamps files there may be a server's."""

    def trial() -> tuple[bool, str]:
        probe = place / "clock"
        before = time.time()
        probe.touch()
        now = (before + time.time()) / 2
        skew_s = probe.stat().st_mtime - now
        return abs(skew_s) <= CLOCK_LIMIT_S, f"files are stamped {abs(skew_s):.2f} s from this machine's clock"

    way_out = "set the clocks by NTP: Snakemake decides by file times what to do again (claims do not mind)"
    return tried("clock", SHARED, way_out, trial)


@contextmanager
def _helper(work: Callable[[Path, Connection], None], path: Path) -> Iterator[Connection]:
    """Run `work` in a process of its own; yield our end of the wire to it."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(_ANSWER_S)
        if process.is_alive():
            process.kill()


def _answer(wire: Connection) -> Any:
    if not wire.poll(_ANSWER_S):
        raise TimeoutError(f"a process did not answer within {_ANSWER_S:.0f} s")
    try:
        return wire.recv()
    except EOFError:
        raise OSError("a process ended before it answered") from None


def _hold_lock(path: Path, wire: Connection) -> None:
    try:
        with path.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            wire.send("held")
            wire.poll(_ANSWER_S)
    except OSError as problem:
        wire.send(problem.strerror or str(problem))


def _read_meanwhile(path: Path, wire: Connection) -> None:
    n_reads, problem = 0, ""
    wire.send("ready")
    while not wire.poll():
        try:
            content = path.read_bytes()
        except OSError as error:
            problem = f"no file: {error.strerror}"
        else:
            if len(content) != _CONTENT_BYTES or content.count(content[:1]) != _CONTENT_BYTES:
                problem = "half of a file"
        n_reads += 1
    wire.send((n_reads, problem))
