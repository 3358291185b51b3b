"""Bad input gives one clear line and the right exit code; good inputs beside it are still done."""

import csv
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.provenance import PROVENANCE
from wsi_mivpg.bags import write_bag


@pytest.fixture
def corrupt_slide(tmp_path: Path) -> Path:
    path = tmp_path / "corrupt.svs"
    path.write_bytes(b"II*\x00not really a slide" * 100)
    return path


@pytest.fixture
def good_slide(tmp_path: Path) -> Path:
    """1024 x 1024 px at 0.5 um/px, a purple square of 3 x 3 tiles on white."""
    pixels = np.full((1024, 1024, 3), 240, np.uint8)
    speckle = np.random.default_rng(0).integers(-20, 20, (672, 672, 1))
    pixels[:672, :672] = np.clip(np.array([170, 90, 160]) + speckle, 0, 255)
    path = tmp_path / "good.tiff"
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(256, 256),
        compression="jpeg",
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
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
        assert (out / "failures.csv").exists()
        assert not list(out.rglob("*.h5"))


@pytest.mark.parametrize("command", ["extract", "report", "cohort virtual"])
def test_folder_that_cannot_be_written_stops_before_any_work(run, tmp_path, corrupt_slide, command):
    (tmp_path / "file").write_text("in the way")
    inputs = [] if command.startswith("cohort") else [corrupt_slide]
    code, _, err = run(*command.split(), *inputs, "--out", tmp_path / "file" / "out")
    assert code == 1
    assert str(tmp_path / "file" / "out") in err
    assert "--out" in err


def test_a_picture_folder_that_cannot_be_written_is_named_with_its_option(run, tmp_path, good_slide):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run("info", good_slide, "--qc", tmp_path / "file" / "qc")
    assert code == 1
    assert str(tmp_path / "file" / "qc") in err
    assert "--qc" in err


def test_a_slide_too_coarse_for_the_encoder_is_named(run, good_slide):
    code, _, err = run("info", good_slide, "--mpp", "4")
    assert code == 1
    assert f"{good_slide}: the slide has 4 microns per pixel" in err


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


def test_good_slide_is_done_beside_a_named_bad_one(run, tmp_path, corrupt_slide, good_slide):
    out = tmp_path / "out"
    code, printed, err = run("extract", good_slide, corrupt_slide, "--out", out, "--json")
    assert code == 3
    assert [one["slide_id"] for one in json.loads(printed)["bags"]] == [good_slide.stem]
    assert (out / f"{good_slide.stem}.h5").is_file()
    with (out / "failures.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slide"] for row in rows] == [str(corrupt_slide)]
    assert str(corrupt_slide) in err
    assert leftovers(out) == []

    again, printed, _ = run("extract", good_slide, "--out", out, "--json")
    assert again == 0
    assert json.loads(printed)["bags"][0]["skipped"]
    assert (out / "failures.csv").exists()  # still failed, though this run did not ask for it
    corrupt_slide.unlink()
    assert run("extract", good_slide, "--out", out)[0] == 0
    assert not (out / "failures.csv").exists()


def test_two_slides_of_one_name_are_refused(run, tmp_path, corrupt_slide):
    twin = tmp_path / "other" / corrupt_slide.name
    twin.parent.mkdir()
    twin.write_bytes(corrupt_slide.read_bytes())
    code, _, err = run("extract", corrupt_slide, twin, "--out", tmp_path / "out")
    assert code == 1
    assert str(twin) in err


def test_report_without_the_model_folder_says_how_to_get_one(run, tmp_path, good_slide):
    code, _, err = run("report", good_slide, "--model", tmp_path / "nothing", "--out", tmp_path / "out")
    assert code == 1
    assert str(tmp_path / "nothing") in err
    assert "train" in err


def test_report_refuses_a_bag_of_another_encoder(run, tmp_path):
    if not (resources.files("wsi_mivpg") / "demo_model" / "model.safetensors").is_file():
        pytest.skip("the demonstration model is not in this checkout; `make demo-model` trains it")
    bag = tmp_path / "foreign.h5"
    made = replace(PROVENANCE, slide_id="foreign", encoder="another-encoder", feature_dim=8)
    features, coords = np.zeros((3, 8), np.float16), np.zeros((3, 2), np.int64)
    write_bag(bag, features, coords, np.ones(3, np.float32), made)
    code, _, err = run("report", bag, "--out", tmp_path / "out")
    assert code == 1
    assert "another-encoder" in err
    assert f"{bag}: " in err
    assert "--force cannot go on" in err
    assert "efficientnet-lite0" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["failures.csv"]
