"""`extract --wait`: slides that another run holds are waited for, and done where that run died."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.extraction.crash import write_slides
from tests.extraction.test_claims import write_claim
from wsi_mivpg.extraction import devices
from wsi_mivpg.extraction.claims import DEAD_AFTER_S

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two slides and the claim of a run on another machine for one of them, with a heartbeat of now."""
    monkeypatch.setattr(devices, "_SECONDS_BETWEEN_LOOKS", 0.05)
    write_slides(tmp_path / "slides", 2)
    (tmp_path / "bags").mkdir()
    return write_claim(tmp_path / "bags", "s1", host="another-machine", pid=1, started=1)


def extract(run: Run, folder: Path, *options: str) -> tuple[int, dict]:
    """Extract the slides with the mean colour; return the exit code and what is printed."""
    encoder = ("--encoder", "tests.extraction.driver:mean_colour")
    code, out, _ = run("extract", folder / "slides", "--out", folder / "bags", *encoder, "--json", *options)
    return code, json.loads(out)


def test_without_waiting_a_slide_that_another_run_holds_is_left_to_it(run: Run, claimed: Path, tmp_path: Path) -> None:
    code, said = extract(run, tmp_path)
    assert code == 0
    assert list(said["elsewhere"]) == ["s1"]
    assert not (tmp_path / "bags" / "s1.h5").exists()


@pytest.mark.parametrize("dies", [False, True], ids=["gives-it-back", "dies"])
def test_waiting_ends_when_the_other_run_gives_a_slide_back_or_dies(
    run: Run, claimed: Path, tmp_path: Path, dies: bool
) -> None:
    long_ago = time.time() - 2 * DEAD_AFTER_S

    def end() -> None:
        while not (tmp_path / "bags" / "status.csv").exists():  # the first run is over, and s1 is seen to be held
            time.sleep(0.02)
        time.sleep(0.3)
        os.utime(claimed, (long_ago, long_ago)) if dies else claimed.unlink()

    other = threading.Thread(target=end, daemon=True)
    other.start()
    code, said = extract(run, tmp_path, "--wait")
    other.join()
    assert code == 0
    assert said["elsewhere"] == {}
    assert [bag["slide_id"] for bag in said["bags"]] == ["s0", "s1"]
    assert (tmp_path / "bags" / "s1.h5").is_file()
