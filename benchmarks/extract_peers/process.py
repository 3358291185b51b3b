"""Run a command and measure the whole of it: wall time, CPU time, and peak memory with all its children."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY_S = 0.05
_WORTH_A_LOOK = 1.01


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        wall_s: from start to end.
        cpu_s: user and system, of the process and the children that it waited for.
        peak_mb: most memory at one time of the process and its children, pages that they share counted once.
        code: exit status.
        output: what it printed, stdout alone.
        errors: the end of stderr.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int
    output: str
    errors: str


def measure(command: Sequence[str | Path], environment: Mapping[str, str], folder: Path, limit_s: float) -> Measured:
    """Run a command to its end, or kill it after `limit_s`.

    Args:
        command: program and arguments.
        environment: added to this process's own.
        folder: takes stdout.txt and stderr.txt.
        limit_s: seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stdout, stderr = folder / "stdout.txt", folder / "stderr.txt"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        began = time.perf_counter()
        child = subprocess.Popen(
            [str(part) for part in command], env={**os.environ, **environment}, stdout=out, stderr=err
        )
        highest_kb = highest_sum_kb = alone_kb = 0
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            alone_kb = max(alone_kb, _high_water_kb(child.pid))
            tree = _tree(child.pid)
            total = sum(_resident_kb(one) for one in tree)
            if total > highest_sum_kb * _WORTH_A_LOOK:  # the exact figure is dear, so it is asked at new highs only
                highest_sum_kb = total
                highest_kb = max(highest_kb, sum(_proportional_kb(one) for one in tree))
            if time.perf_counter() - began > limit_s:
                child.kill()
            time.sleep(_EVERY_S)
        wall_s = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)  # reaped here, so that Popen does not wait for it again
    return Measured(
        wall_s,
        usage.ru_utime + usage.ru_stime,
        max(highest_kb, alone_kb) * 1024 / 1e6,
        child.returncode,
        stdout.read_text(encoding="utf-8", errors="replace"),
        stderr.read_text(encoding="utf-8", errors="replace")[-2000:],
    )


def _tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in _read(task).split()]
    return found


def _resident_kb(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // 1024 if fields else 0


def _high_water_kb(pid: int) -> int:
    """Return the most that a process alone ever had since it began its program; `ru_maxrss` has its parent's too."""
    found = [line for line in _read(Path(f"/proc/{pid}/status")).splitlines() if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) if found else 0


def _proportional_kb(pid: int) -> int:
    """Return resident memory, each page divided by the number of processes that share it."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    """Return a file of /proc, or nothing where the process has ended."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
