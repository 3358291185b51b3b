"""What `doctor --scratch` looks at: whether a folder is the node's own, how large it is, and how fast."""

import os
import time
from pathlib import Path

from wsi_mivpg.cli.finding import SCRATCH, SHARED, Finding, free_space, tried, work_place
from wsi_mivpg.cli.mounts import mount_of

_SPEED_MB = 64


def scratch_findings(folder: Path, shared: Path | None = None) -> list[Finding]:
    """Look at a folder for temporary files: is it the node's own, how large, and faster than `shared`?"""
    with work_place(folder, SCRATCH) as place:
        if isinstance(place, Finding):
            return [place]
        return [_own(folder), free_space(folder, SCRATCH), _speed(place, shared)]


def _own(folder: Path) -> Finding:
    mount = mount_of(folder)
    if mount.is_network:
        way_out = "name a disk of the node, often $SLURM_TMPDIR, $TMPDIR, /scratch or /local"
        return Finding(f"file system of {folder}", SCRATCH, False, f"{mount.kind}: not this node's own", way_out)
    memory = ": memory, which counts against the job's" if mount.kind in {"tmpfs", "ramfs"} else ""
    return Finding(f"file system of {folder}", SCRATCH, True, f"{mount.kind}{memory}")


def _speed(place: Path, shared: Path | None) -> Finding:
    way_out = "leave temporary files and slides on the shared folder: set TMPDIR to it"

    def trial() -> tuple[bool, str]:
        written, read = speed_mb_s(place)
        detail = f"writes {written:,.0f} MB/s, reads {read:,.0f} MB/s"
        if shared is None:
            return True, detail
        with work_place(shared, SHARED) as other:
            if isinstance(other, Finding):
                return True, detail
            theirs = speed_mb_s(other)
        detail += f"; {shared} {theirs[0]:,.0f} and {theirs[1]:,.0f} MB/s"
        # One pass each on a machine that may be busy: only what is slower by far is called slow.
        return written >= theirs[0] / 2 or read >= theirs[1] / 2, detail

    return tried("speed", SCRATCH, way_out, trial)


def speed_mb_s(folder: Path) -> tuple[float, float]:
    """Return MB/s of writing and syncing one file of 64 MB, and of reading it again once the kernel has dropped it."""
    path, block = folder / "speed", os.urandom(1_000_000)
    started = time.perf_counter()
    with path.open("wb") as stream:
        for _ in range(_SPEED_MB):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
        written_s = time.perf_counter() - started
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    with path.open("rb", buffering=0) as stream:
        while stream.read(len(block)):
            pass
    read_s = time.perf_counter() - started
    path.unlink()
    return _SPEED_MB / written_s, _SPEED_MB / read_s
