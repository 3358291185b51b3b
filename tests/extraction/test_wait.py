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
from tests.training.tiny_cohort import tiny_recipe
from wsi_mivpg.extraction import devices
from wsi_mivpg.extraction.claims import DEAD_AFTER_S
from wsi_mivpg.extraction.ledger import read_status
from wsi_mivpg.training.recipe import as_yaml

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two slides and the claim of a run on another machine for one of them, with a heartbeat of now."""
    monkeypatch.setattr(devices, "_SECONDS_BETWEEN_LOOKS", 0.05)
    write_slides(tmp_path / "slides", 2)
    (tmp_path / "bags").mkdir()
    return write_claim(tmp_path / "bags", "s1", host="another-machine", pid=1, started=1)


def extract(run: Run, folder: Path, *options: str) -> tuple[int, dict, str]:
    """Extract the slides with the mean colour; return the exit code, what is printed, and what is on stderr."""
    encoder = ("--encoder", "tests.extraction.driver:mean_colour")
    code, out, err = run("extract", folder / "slides", "--out", folder / "bags", *encoder, "--json", *options)
    return code, json.loads(out), err


def test_without_waiting_a_slide_that_another_run_holds_is_left_to_it_and_named(
    run: Run, claimed: Path, tmp_path: Path
) -> None:
    code, said, err = extract(run, tmp_path)
    assert code == 0
    assert list(said["elsewhere"]) == ["s1"]
    assert not (tmp_path / "bags" / "s1.h5").exists()
    assert "s1: another run does it (another-machine, process 1)" in err
    assert "warning: 1 of 2 slides are left to other runs and may have no bag yet" in err
    assert "--wait" in err
    rows = {row.slide_id: row for row in read_status(tmp_path / "bags" / "status.csv")}
    assert (rows["s1"].state, rows["s1"].message) == ("elsewhere", "another-machine, process 1")
    assert "## Left to other runs\n\n- `s1`" in (tmp_path / "bags" / "summary.md").read_text()


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
    code, said, err = extract(run, tmp_path, "--wait")
    other.join()
    assert code == 0
    assert "s1: another run does it (another-machine, process 1); waiting" in err
    assert "left to other runs" not in err
    assert said["elsewhere"] == {}
    assert [bag["slide_id"] for bag in said["bags"]] == ["s0", "s1"]
    assert (tmp_path / "bags" / "s1.h5").is_file()


def test_a_training_waits_for_the_slides_that_another_run_holds_and_leaves_out_none(
    run: Run, claimed: Path, tmp_path: Path
) -> None:
    rows = [f"s{number},{tmp_path / 'slides' / f's{number}.tiff'},train,benign" for number in range(2)]
    (tmp_path / "own.csv").write_text("\n".join(["case_id,slide,split,report", *rows]))
    recipe = tiny_recipe(
        tmp_path / "base",
        data={"manifest": str(tmp_path / "own.csv"), "encoder": "tests.extraction.driver:mean_colour"},
    )
    (tmp_path / "recipe.yaml").write_text(as_yaml(recipe))

    def end() -> None:
        while not (tmp_path / "bags" / "status.csv").exists():
            time.sleep(0.02)
        time.sleep(0.3)
        claimed.unlink()

    other = threading.Thread(target=end, daemon=True)
    other.start()
    words = (tmp_path / "recipe.yaml", "--out", tmp_path / "out", "--data", tmp_path)
    code, out, err = run("train", *words, "--prepare-only", "--json")
    other.join()
    assert code == 0, err
    assert json.loads(out)["bags"] == 2
    assert "waiting until it is done" in err
    assert {path.name for path in (tmp_path / "bags").glob("s*.h5")} == {"s0.h5", "s1.h5"}
