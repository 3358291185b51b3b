"""Claims are exclusive, are given back, and a dead run's are free for one taker."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from wsi_mivpg.errors import OutputError
from wsi_mivpg.extraction.claims import Claims


def write_claim(folder, slide_id, **content):
    (folder / ".claims").mkdir(exist_ok=True)
    path = folder / ".claims" / slide_id
    path.write_text(json.dumps(content))
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_of_two_holders_one_only_gets_a_claim_until_it_is_given_back(tmp_path):
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        assert one.take("a")
        assert not two.take("a")
        assert not two.take("a", from_the_dead=True)
        assert two.holder("a") == f"{socket.gethostname()}, process {os.getpid()}"
        one.release("a")
        assert two.holder("a") is None
        assert two.take("a")


def test_leaving_gives_all_claims_back_and_leaves_no_folder(tmp_path):
    with Claims(tmp_path) as claims:
        assert claims.take("a")
        assert claims.take("b")
    assert not list(tmp_path.iterdir())


def test_of_many_threads_one_gets_a_dead_claim(tmp_path):
    write_claim(tmp_path, "a", host=socket.gethostname(), pid=dead_pid(), started=1)
    got = []
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        barrier = threading.Barrier(8)

        def take(claims):
            barrier.wait()
            if claims.take("a", from_the_dead=True):
                got.append(claims)

        threads = [threading.Thread(target=take, args=(claims,)) for claims in [first, second] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(got) == 1


def test_a_dead_claim_is_left_alone_unless_it_is_asked_for(tmp_path):
    write_claim(tmp_path, "a", host=socket.gethostname(), pid=dead_pid(), started=1)
    with Claims(tmp_path) as claims:
        assert claims.is_dead("a")
        assert not claims.take("a")
        assert claims.take("a", from_the_dead=True)


def test_a_process_number_that_was_given_again_is_not_the_holder(tmp_path):
    write_claim(tmp_path, "a", host=socket.gethostname(), pid=os.getpid(), started=1)
    with Claims(tmp_path) as claims:
        assert claims.is_dead("a")


def test_a_killed_process_whose_end_its_parent_has_not_asked_for_is_not_the_holder(tmp_path):
    hold = """
import sys, time
from pathlib import Path
from wsi_mivpg.extraction.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    claims.take("a")
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with Claims(tmp_path) as claims:
            assert not claims.is_dead("a")
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
            assert claims.is_dead("a")


def test_a_run_that_is_killed_while_it_claims_leaves_no_claim_behind(tmp_path):
    killed = """
import json, os, signal, sys
from pathlib import Path
from wsi_mivpg.extraction.claims import Claims
json.dump = os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with Claims(Path(sys.argv[1])) as claims:
    claims.take("a")
"""
    assert subprocess.run([sys.executable, "-c", killed, tmp_path]).returncode == -signal.SIGKILL
    with Claims(tmp_path) as claims:
        assert claims.take("a", from_the_dead=True)


def test_where_there_are_no_hard_links_a_claim_is_exclusive_all_the_same(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "link", no_links)
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        assert one.take("a")
        assert not two.take("a")
        assert two.holder("a") == f"{socket.gethostname()}, process {os.getpid()}"


def test_another_hosts_claim_lives_by_its_heartbeat(tmp_path):
    path = write_claim(tmp_path, "a", host="elsewhere", pid=1, started=1)
    with Claims(tmp_path, dead_after_s=60) as claims:
        assert not claims.is_dead("a")
        long_ago = time.time() - 61
        os.utime(path, (long_ago, long_ago))
        assert claims.is_dead("a")
        assert claims.holder("a") == "elsewhere, process 1"


def test_a_held_claim_is_touched(tmp_path):
    with Claims(tmp_path, heartbeat_s=0.02) as claims:
        claims.take("a")
        path = tmp_path / ".claims" / "a"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 100:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_claim_that_was_taken_over_is_not_given_back_by_its_old_holder(tmp_path):
    with Claims(tmp_path) as claims:
        claims.take("a")
        write_claim(tmp_path, "a", host="elsewhere", pid=1, started=1)
        claims.release("a")
        assert claims.holder("a") == "elsewhere, process 1"


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --out"), Claims(tmp_path / "file"):
        pass
