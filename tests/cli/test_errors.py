"""Bad input gives one clear line and the right exit code; good inputs beside it are still done."""

import csv
import json
from pathlib import Path

import pytest

from wsi_mivpg.cli.main import main


@pytest.fixture
def run(capsys):
    def run_program(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(leaving.value.code or 0), captured.out, captured.err

    return run_program


@pytest.fixture
def corrupt_slide(tmp_path: Path) -> Path:
    path = tmp_path / "corrupt.svs"
    path.write_bytes(b"II*\x00not really a slide" * 100)
    return path


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("command", ["info", "extract"])
def test_missing_file_is_named(run, tmp_path, command):
    missing = tmp_path / "nowhere.svs"
    out = [] if command == "info" else ["--out", tmp_path / "out"]
    code, _, err = run(command, missing, *out)
    assert code == 1
    assert err.startswith("error: ")
    assert str(missing) in err


@pytest.mark.parametrize("command", ["info", "extract"])
def test_folder_without_slides_is_named(run, tmp_path, command):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = [] if command == "info" else ["--out", tmp_path / "out"]
    code, _, err = run(command, empty, *out)
    assert code == 1
    assert str(empty) in err


@pytest.mark.parametrize("command", ["info", "extract"])
def test_corrupt_slide_is_named_and_leaves_no_bag(run, tmp_path, corrupt_slide, command):
    out = tmp_path / "out"
    code, _, err = run(command, corrupt_slide, *([] if command == "info" else ["--out", out]))
    assert code == 1
    assert str(corrupt_slide) in err
    if command == "extract":
        assert [path.name for path in out.iterdir()] == ["failures.csv"]


@pytest.mark.parametrize("command", ["extract", "report", "cohort virtual"])
def test_folder_that_cannot_be_written_stops_before_any_work(run, tmp_path, corrupt_slide, command):
    (tmp_path / "file").write_text("in the way")
    inputs = [] if command.startswith("cohort") else [corrupt_slide]
    code, _, err = run(*command.split(), *inputs, "--out", tmp_path / "file" / "out")
    assert code == 1
    assert str(tmp_path / "file" / "out") in err
    assert "--out" in err


def test_unknown_option_is_wrong_usage(run):
    code, _, err = run("info", "slide.svs", "--resolution", "0.5")
    assert code == 2
    assert "--resolution" in err


def test_missing_out_is_wrong_usage(run):
    assert run("extract", "slide.svs")[0] == 2


def test_unknown_encoder_lists_the_known_ones(run, tmp_path, corrupt_slide):
    code, _, err = run("extract", corrupt_slide, "--out", tmp_path / "out", "--encoder", "uni99")
    assert code == 1
    assert "uni99" in err
    assert "efficientnet-lite0" in err


def test_encoders_prints_json(run):
    code, out, _ = run("encoders", "--json")
    assert code == 0
    assert {one["name"] for one in json.loads(out)} >= {"efficientnet-lite0"}


def test_good_slide_is_done_beside_a_bad_one_and_failures_are_named(
    run, tmp_path, corrupt_slide, tiled_slide
):
    good = _small_slide(tiled_slide)
    out = tmp_path / "out"
    code, printed, err = run("extract", good, corrupt_slide, "--out", out, "--json")
    assert code == 3
    assert [one["slide_id"] for one in json.loads(printed)["bags"]] == [good.stem]
    assert (out / f"{good.stem}.h5").is_file()
    with (out / "failures.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slide"] for row in rows] == [str(corrupt_slide)]
    assert str(corrupt_slide) in err
    assert leftovers(out) == []

    again, printed, _ = run("extract", good, "--out", out, "--json")
    assert again == 0
    assert json.loads(printed)["bags"][0]["skipped"]
    assert not (out / "failures.csv").exists()


def test_two_slides_of_one_name_are_refused(run, tmp_path, corrupt_slide):
    twin = tmp_path / "other" / corrupt_slide.name
    twin.parent.mkdir()
    twin.write_bytes(corrupt_slide.read_bytes())
    code, _, err = run("extract", corrupt_slide, twin, "--out", tmp_path / "out")
    assert code == 1
    assert str(twin) in err
