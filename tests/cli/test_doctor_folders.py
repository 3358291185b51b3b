"""`doctor` tells good shared and scratch folders from bad ones by trying them, and leaves nothing behind."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from wsi_mivpg.cli import doctor_shared
from wsi_mivpg.cli.doctor_nodes import WAIT_S, nodes_findings
from wsi_mivpg.cli.doctor_scratch import scratch_findings
from wsi_mivpg.cli.doctor_shared import shared_findings
from wsi_mivpg.cli.mounts import Mount, mount_of

PATIENCE_S = WAIT_S + 60
"""A doctor that waits in vain says so itself, and is not to be cut off before."""

MOUNTINFO = """\
21 1 253:0 / / rw,relatime - ext4 /dev/vda rw
40 21 0:35 / /lustre rw,localflock - lustre 10.0.0.1@o2ib:/fs rw,seclabel
41 21 0:36 / /nfs rw,relatime - nfs4 server:/export rw,vers=4.2,local_lock=none
42 21 0:37 / /nfs/old\\040home rw - nfs server:/home rw,vers=3,nolock
43 21 0:38 / /bucket rw - fuse.s3fs s3fs rw,user_id=0
44 21 0:39 / /lustre rw,flock - lustre 10.0.0.1@o2ib:/fs rw
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO)
    return path


def mounted(monkeypatch, where, kind, option):
    """Say that a folder lies on another file system than it does."""
    monkeypatch.setattr(where, lambda folder: Mount(kind, frozenset({option})))


def by_name(findings):
    return {one.what: one for one in findings}


@pytest.mark.parametrize(
    ("folder", "kind", "is_network", "locks_stay_here"),
    [
        ("/home/me", "ext4", False, None),
        ("/lustre/bags", "lustre", True, None),  # the later mount covers the one with localflock
        ("/nfs/bags", "nfs4", True, None),
        ("/nfs/old home/bags", "nfs", True, "nolock"),
        ("/nfsx", "ext4", False, None),
        ("/bucket/bags", "fuse.s3fs", True, None),
    ],
)
def test_the_mount_table_says_where_a_folder_lies(table, folder, kind, is_network, locks_stay_here):
    mount = mount_of(Path(folder), table)
    assert (mount.kind, mount.is_network, mount.locks_stay_here) == (kind, is_network, locks_stay_here)


def test_a_mount_that_the_kernel_does_not_tell_of_is_unknown(tmp_path):
    assert mount_of(tmp_path, tmp_path / "none").kind == "unknown"


def test_a_good_folder_passes_every_check_and_nothing_is_left_in_it(tmp_path):
    findings = shared_findings(tmp_path)
    assert all(one.ok for one in findings), findings
    assert len(findings) == 8
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_fails_once_and_says_what_to_do(tmp_path):
    (finding,) = shared_findings(tmp_path / "none")
    assert not finding.ok
    assert "No such file" in finding.detail
    assert "name a folder" in finding.way_out


def test_a_lock_that_two_can_hold_is_found(tmp_path, monkeypatch):
    # In this process only: the other one holds a real lock, which ours does not see.
    monkeypatch.setattr(fcntl, "flock", lambda stream, how: None)
    lock = by_name(shared_findings(tmp_path))["file locks (flock)"]
    assert not lock.ok
    assert "two processes held one lock" in lock.detail


def test_locks_that_other_nodes_do_not_see_are_found_by_the_mount_option(tmp_path, monkeypatch):
    mounted(monkeypatch, "wsi_mivpg.cli.doctor_shared.mount_of", "lustre", "localflock")
    lock = by_name(shared_findings(tmp_path))["file locks (flock)"]
    assert not lock.ok
    assert "localflock" in lock.detail


def test_a_file_that_is_gone_while_it_is_replaced_is_found(tmp_path, monkeypatch):
    def slowly(source, target):
        os.unlink(target)
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    replace = by_name(shared_findings(tmp_path))["atomic replace"]
    assert not replace.ok
    assert "No such file" in replace.detail


def test_claims_that_two_can_take_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("wsi_mivpg.extraction.claims.Claims.take", lambda self, slide_id: True)
    assert not by_name(shared_findings(tmp_path))["claims of slides"].ok


def test_a_file_system_without_hard_links_is_good_enough_for_claims(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    claims = by_name(shared_findings(tmp_path))["claims of slides"]
    assert claims.ok
    assert "exclusive creation" in claims.detail


def test_a_file_system_that_cannot_sync_is_found(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    findings = by_name(shared_findings(tmp_path))
    assert [name for name, one in findings.items() if not one.ok] == ["atomic replace", "fsync"]
    assert "Input/output error" in findings["fsync"].detail


def test_a_folder_of_claims_that_cannot_be_made_is_a_finding_and_no_traceback(tmp_path, monkeypatch):
    make = os.mkdir

    def make_others(path, *rest):
        if str(path).endswith(".claims"):
            raise PermissionError(errno.EACCES, "Permission denied")
        make(path, *rest)

    monkeypatch.setattr(os, "mkdir", make_others)
    claims = by_name(shared_findings(tmp_path))["claims of slides"]
    assert not claims.ok
    assert "cannot write" in claims.detail


def test_a_clock_that_is_off_is_found(tmp_path, monkeypatch):
    now = time.time
    monkeypatch.setattr("wsi_mivpg.cli.doctor_shared.time.time", lambda: now() + 60)
    clock = by_name(shared_findings(tmp_path))["clock"]
    assert not clock.ok
    assert "60.0" in clock.detail
    assert "NTP" in clock.way_out


def test_a_process_that_ends_before_it_answers_is_a_finding_and_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_shared, "_hold_lock", leave)
    lock = by_name(shared_findings(tmp_path))["file locks (flock)"]
    assert not lock.ok
    assert "ended before it answered" in lock.detail


def leave(path, wire):
    """What the other process does in the test above."""


def test_scratch_is_measured_and_beside_it_the_shared_folder(tmp_path):
    alone, beside = scratch_findings(tmp_path), scratch_findings(tmp_path, tmp_path)
    assert [one.what for one in alone] == [f"file system of {tmp_path}", "free there", "speed"]
    assert "MB/s" in alone[2].detail
    assert str(tmp_path) in beside[2].detail
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("scratch", "ok"), [((100.0, 100.0), False), ((100.0, 600.0), True)])
def test_scratch_that_is_slower_by_far_than_the_shared_folder_is_worth_nothing(tmp_path, monkeypatch, scratch, ok):
    speeds = iter([scratch, (1000.0, 1000.0)])
    monkeypatch.setattr("wsi_mivpg.cli.doctor_scratch.speed_mb_s", lambda folder: next(speeds))
    speed = scratch_findings(tmp_path, tmp_path)[2]
    assert speed.ok == ok
    assert ("TMPDIR" in speed.way_out) == (not ok)


def test_scratch_on_a_network_is_not_the_nodes_own(tmp_path, monkeypatch):
    mounted(monkeypatch, "wsi_mivpg.cli.doctor_scratch.mount_of", "nfs4", "rw")
    own = scratch_findings(tmp_path)[0]
    assert not own.ok
    assert "$TMPDIR" in own.way_out


def test_doctors_on_several_nodes_meet_and_leave_nothing(tmp_path):
    meeting = textwrap.dedent(
        """
        import json, sys
        from dataclasses import asdict
        from pathlib import Path
        from wsi_mivpg.cli.doctor_nodes import nodes_findings
        print(json.dumps([asdict(one) for one in nodes_findings(Path(sys.argv[1]), 3)]))
        """
    )
    command = [sys.executable, "-c", meeting, str(tmp_path)]
    doctors = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for doctor in doctors:
        printed, _ = doctor.communicate(timeout=PATIENCE_S)
        findings = {one["what"]: one for one in json.loads(printed)}
        assert all(one["ok"] for one in findings.values()), findings
        assert findings["claims of slides"]["detail"] == "20 of 20 had one winner"
        assert findings["file locks (flock)"]["detail"] == "counted to 75 of 75 under one lock"
        assert "one machine" in findings["nodes"]["detail"]
    assert not list(tmp_path.iterdir())


def test_nodes_whose_locks_and_claims_do_not_hold_are_found(tmp_path):
    broken = textwrap.dedent(
        """
        import fcntl, json, sys
        from pathlib import Path
        from wsi_mivpg.cli.doctor_nodes import nodes_findings
        from wsi_mivpg.extraction.claims import Claims
        fcntl.flock = lambda stream, how: None
        Claims.take = lambda self, slide_id: True
        print(json.dumps({one.what: one.ok for one in nodes_findings(Path(sys.argv[1]), 2)}))
        """
    )
    command = [sys.executable, "-c", broken, str(tmp_path)]
    doctors = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for doctor in doctors:
        found = json.loads(doctor.communicate(timeout=PATIENCE_S)[0])
        assert found == {"nodes": True, "claims of slides": False, "file locks (flock)": False, "clocks": True}


def test_a_node_that_is_alone_says_how_to_start_all(tmp_path):
    (finding,) = nodes_findings(tmp_path, 2, wait_s=0.3)
    assert not finding.ok
    assert "1 of 2 came" in finding.detail
    assert "srun --nodes 2" in finding.detail


def test_the_command_exits_1_when_a_folder_that_was_asked_for_fails(run, tmp_path):
    code, printed, _ = run("doctor", "--json", "--shared", tmp_path / "none", "--scratch", tmp_path)
    assert code == 1
    of_folders = [one for one in json.loads(printed) if one["needed_for"] in ("shared folder", "scratch")]
    assert [one["what"] for one in of_folders if not one["ok"]] == [str(tmp_path / "none")]


def test_the_table_says_which_folder_fails(run, tmp_path):
    _, printed, _ = run("doctor", "--scratch", tmp_path / "none")
    assert [line.split()[:2] for line in printed.splitlines() if "FAILS" in line] == [["FAILS", str(tmp_path / "none")]]


def test_nodes_without_a_shared_folder_are_wrong_usage(run):
    code, _, errors = run("doctor", "--nodes", "2")
    assert code == 2
    assert "--shared" in errors
