"""Whatever ends or disturbs a run, no half bag has a bag's name, and the next run completes it to the same bytes."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.extraction.crash import ROOT, bags, kill_and_compare, start, write_slides
from tests.extraction.driver import MeanColour
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.extraction import extract_many, find_slides


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    return write_slides(tmp_path_factory.mktemp("crash") / "slides", 6)


def wait_for_bags(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(out.glob("s*.h5"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_kills_at_25_random_moments_leave_whole_bags_and_the_next_run_completes_them(slides, tmp_path):
    kill_and_compare(slides, tmp_path, kills=25, seed=1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_gives_its_claims_back_and_leaves_nothing_half(slides, tmp_path, number, code):
    run = start(slides, tmp_path / "out", delay_s=0.1)
    wait_for_bags(tmp_path / "out", 1)
    run.send_signal(number)
    assert run.wait(30) == code
    assert not (tmp_path / "out" / ".claims").exists()
    assert not list((tmp_path / "out").glob(".*.tmp"))
    for path in (tmp_path / "out").glob("*.h5"):
        FeatureBag.open(path)


def test_two_runs_share_the_work_and_do_no_slide_twice(slides, tmp_path):
    runs = [start(slides, tmp_path / "out", delay_s=0.05) for _ in range(2)]
    states = [json.loads(run.communicate(timeout=60)[0]) for run in runs]
    done = [[slide for slide, state in one.items() if state == "done"] for one in states]
    assert sorted(done[0] + done[1]) == [f"s{number}" for number in range(6)]
    extract_many(find_slides([slides]), tmp_path / "alone", [MeanColour()], batch_size=8)
    assert bags(tmp_path / "out") == bags(tmp_path / "alone")


def test_what_a_killed_run_held_is_taken_over_by_one_that_runs_beside_it(slides, tmp_path):
    first = start(slides, tmp_path / "out", delay_s=0.1)
    wait_for_bags(tmp_path / "out", 1)
    second = start(slides, tmp_path / "out", delay_s=0.05)
    time.sleep(0.3)
    first.kill()
    first.wait()
    states = json.loads(second.communicate(timeout=60)[0])
    assert set(states.values()) <= {"done", "kept"}
    assert len(bags(tmp_path / "out")) == 6


def test_the_process_of_a_device_ends_when_its_run_is_killed():
    run_of_one = """
import time
from wsi_mivpg.extraction.devices import new_pool
pool = new_pool()
pool.submit(time.sleep, 0).result()
print(next(iter(pool._processes)), flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", run_of_one]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    ) as run:
        process = psutil.Process(int(run.stdout.readline()))
        run.kill()
    _, alive = psutil.wait_procs([process], timeout=60)
    for one in alive:
        one.kill()
    assert not alive


def test_a_full_disk_stops_the_run_cleanly_and_the_next_one_goes_on(slides, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    # Room for some bags, not for all.
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small tmpfs here")
    try:
        run = start(slides, disk / "out", delay_s=0)
        printed = run.communicate(timeout=60)[0]
        assert run.returncode == 1
        assert "free space there" in printed
        left = bags(disk / "out")
        assert 0 < len(left) < 6
        assert not list((disk / "out").glob(".*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert start(slides, disk / "out", delay_s=0).wait(60) == 0
        complete = bags(disk / "out")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    extract_many(find_slides([slides]), tmp_path / "alone", [MeanColour()], batch_size=8)
    assert left.items() <= complete.items()
    assert complete == bags(tmp_path / "alone")


def test_a_file_that_may_not_grow_is_an_error_that_leaves_nothing_half(slides, tmp_path):
    """The same where nothing can be mounted: the run's files may have 4 KiB only."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    run = start(slides, tmp_path / "out", delay_s=0, preexec_fn=limit)
    printed = run.communicate(timeout=60)[0]
    assert run.returncode == 1
    assert "s0.h5" in printed
    assert "free space there" in printed
    assert not bags(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.tmp"))


@pytest.mark.parametrize("harm", ["vanish", "truncate", "replace"])
def test_a_slide_that_goes_bad_while_it_is_read_gives_no_bag_and_stops_nobody(tmp_path, harm):
    slides = write_slides(tmp_path / "slides", 3)
    victim = slides / "s1.tiff"
    whole = victim.read_bytes()

    class Harming(MeanColour):
        """Harms the second slide as soon as the first tiles are encoded; it is open by then, or soon."""

        def encode(self, tiles):
            features = super().encode(tiles)
            if len(self.batches) == 22:
                if harm == "vanish":
                    victim.unlink()
                elif harm == "truncate":
                    os.truncate(victim, 5000)
                else:
                    victim.write_bytes(bytes(len(whole)))
            return features

    harming = Harming(delay_s=0.01)
    summary = extract_many(find_slides([slides]), tmp_path / "out", [harming], batch_size=8, threads=1)
    assert [one.slide_id for one in summary.results] == ["s0", "s2"]
    (failure,) = summary.failures
    assert failure.slide == str(victim)
    assert "changed or vanished" in failure.error
    assert set(bags(tmp_path / "out")) == {"s0.h5", "s2.h5"}
    victim.write_bytes(whole)
    again = extract_many(find_slides([slides]), tmp_path / "out", [MeanColour()], batch_size=8)
    assert [one.state for one in again.results] == ["kept", "done", "kept"]
