"""What `doctor --shared FOLDER --nodes N` tries: N doctors, started at once on as many nodes, meet in the folder.

They want the same claims, try a lock that one of them holds, and count together under one, as runs that share a
folder do. Each says what it saw.
"""

import fcntl
import json
import os
import shutil
import socket
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import IO, Any

from wsi_mivpg.atomic import write_text
from wsi_mivpg.cli.finding import BETWEEN, Finding
from wsi_mivpg.errors import OutputError, WsiMivpgError

WAIT_S = 120.0
CLOCK_LIMIT_S = 2.0
_FOLDER = ".wsi-mivpg-doctor-nodes"
_LOOK_EVERY_S = 0.1
_CLAIMS = 20
_COUNTS = 25


class _Meeting:
    """This doctor's place among the N that meet."""

    def __init__(self, folder: Path, n_nodes: int, wait_s: float) -> None:
        self.folder, self.n_nodes, self.wait_s = folder / _FOLDER, n_nodes, wait_s
        self.me = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"

    def say(self, phase: str, content: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Tell the others, and return what all of them say, by name, once all have spoken.

        Raises:
            OutputError: too few of them came in time, or too many.
        """
        deadline = time.monotonic() + self.wait_s
        write_text(self.folder / f"{phase}.{self.me}.json", json.dumps(content))
        while True:
            present = sorted(self.folder.glob(f"{phase}.*.json"))
            if len(present) > self.n_nodes:
                raise OutputError(
                    f"{len(present)} came where --nodes says {self.n_nodes}; if an earlier try was killed, "
                    f"remove {self.folder}"
                )
            if len(present) == self.n_nodes:
                return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in present}
            if time.monotonic() > deadline:
                raise OutputError(
                    f"{len(present)} of {self.n_nodes} came within {self.wait_s:.0f} s; start them at once, "
                    f"for example `srun --nodes {self.n_nodes} --ntasks-per-node 1 wsi-mivpg doctor --shared FOLDER "
                    f"--nodes {self.n_nodes}`, and remove {self.folder}"
                )
            time.sleep(_LOOK_EVERY_S)


def nodes_findings(folder: Path, n_nodes: int, wait_s: float = WAIT_S) -> list[Finding]:
    """Meet the other doctors in `folder` and try what runs on several nodes rely on."""
    from wsi_mivpg.extraction.claims import Claims

    meeting = _Meeting(folder, n_nodes, wait_s)
    way_out = "let one node at a time write to a folder there; with Slurm give each job its own --out"
    try:
        clocks = meeting.say("here", _clock_there(meeting))
        hosts = sorted({content["host"] for content in clocks.values()})
        with Claims(meeting.folder) as claims:
            won = [number for number in range(_CLAIMS) if claims.take(f"slide-{number}")]
            claimed = meeting.say("claimed", {"won": won})
        got_in = _try_a_held_lock(meeting, holder=next(iter(clocks)).endswith(f"{meeting.me}.json"))
        _count_together(meeting.folder / "count")
        meeting.say("counted", {})
        counted = int((meeting.folder / "count").read_text())
        last = meeting.say("done", {})
        if next(iter(last)).endswith(f"{meeting.me}.json"):
            _leave(meeting, n_nodes)
        else:
            (meeting.folder / f"left.{meeting.me}").touch()
    except (OSError, ValueError, WsiMivpgError) as problem:
        return [Finding(f"{n_nodes} nodes", BETWEEN, False, str(problem), way_out)]
    return [
        _who(hosts, n_nodes),
        _claims([content["won"] for content in claimed.values()], way_out),
        _lock(got_in, counted, n_nodes, way_out),
        _clocks([content["skew_s"] for content in clocks.values()]),
    ]


def _clock_there(meeting: _Meeting) -> dict[str, Any]:
    meeting.folder.mkdir(exist_ok=True)
    probe = meeting.folder / f"clock.{meeting.me}"
    before = time.time()
    probe.touch()
    now = (before + time.time()) / 2
    return {"host": socket.gethostname(), "skew_s": now - probe.stat().st_mtime}


def _try_a_held_lock(meeting: _Meeting, holder: bool) -> int:
    """Return how many got a lock while another held it; counting alone misses that if they take turns by chance."""
    with (meeting.folder / "held").open("a+") as stream:
        if holder:
            fcntl.flock(stream, fcntl.LOCK_EX)
        meeting.say("held", {})
        tried = meeting.say("tried", {"got_in": not holder and _gets(stream)})
    return sum(content["got_in"] for content in tried.values())


def _gets(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _count_together(path: Path) -> None:
    """Add to a number that all nodes add to; without a lock that all respect, additions are lost."""
    for _ in range(_COUNTS):
        with path.open("a+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            number = int(stream.read() or 0)
            time.sleep(0.002)  # long enough for another node to come between, if it can
            stream.truncate(0)
            stream.write(str(number + 1))
            stream.flush()
            os.fsync(stream.fileno())


def _leave(meeting: _Meeting, n_nodes: int) -> None:
    """Take the meeting's folder away when all others have read what was said last."""
    deadline = time.monotonic() + meeting.wait_s
    while len(list(meeting.folder.glob("left.*"))) < n_nodes - 1 and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    shutil.rmtree(meeting.folder, ignore_errors=True)


def _who(hosts: list[str], n_nodes: int) -> Finding:
    detail = f"{n_nodes} doctors on {', '.join(hosts)}"
    if len(hosts) > 1:
        return Finding("nodes", BETWEEN, True, detail)
    return Finding("nodes", BETWEEN, True, f"{detail}: one machine, so this says nothing of others")


def _claims(won: list[list[int]], way_out: str) -> Finding:
    winners = Counter(number for numbers in won for number in numbers)
    wrong = [number for number in range(_CLAIMS) if winners[number] != 1]
    detail = f"{len(wrong)} of {_CLAIMS} claims" + (" had not exactly one winner" if wrong else "")
    detail = detail if wrong else f"{_CLAIMS} of {_CLAIMS} had one winner"
    return Finding("claims of slides", BETWEEN, not wrong, detail, way_out if wrong else "")


def _lock(got_in: int, counted: int, n_nodes: int, way_out: str) -> Finding:
    wanted = n_nodes * _COUNTS
    ok = not got_in and counted == wanted
    detail = f"counted to {counted} of {wanted} under one lock"
    if got_in:
        detail = f"{got_in} of {n_nodes - 1} got a lock that another held; {detail}"
    return Finding("file locks (flock)", BETWEEN, ok, detail, "" if ok else f"mount it with flock; or {way_out}")


def _clocks(skews_s: list[float]) -> Finding:
    apart_s = max(skews_s) - min(skews_s)
    ok = apart_s <= CLOCK_LIMIT_S
    way_out = "" if ok else "set the nodes' clocks by NTP: times in logs, and what Snakemake does again, depend on them"
    return Finding("clocks", BETWEEN, ok, f"{apart_s:.2f} s apart at most", way_out)
