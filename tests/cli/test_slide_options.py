"""The options that `info`, `extract` and `report` share do what they say."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.slides.damage import damaged
from wsi_mivpg.cli.main import main


def run(capsys, *arguments) -> tuple[int, str, str]:
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def described(capsys, *arguments) -> dict:
    code, out, _ = run(capsys, "info", *arguments, "--json")
    assert code == 0
    return json.loads(out)[0]


def test_info_tells_reader_tissue_and_tiles_and_draws_them(tiled_slide, tmp_path, capsys):
    path = tiled_slide()
    said = described(capsys, path, "--qc", tmp_path / "qc")
    assert (said["reader"], said["tissue_method"]) == ("tile-once", "otsu-od-chroma/4")
    assert said["tissue_mm2"] == pytest.approx(900 * 800 * 0.25 / 1e6, rel=0.1)
    picture = np.asarray(Image.open(tmp_path / "qc" / "slide.jpg")).astype(int)
    assert picture.shape == (1200, 1500, 3)
    green = (picture[..., 1] - picture[..., 0] > 80) & (picture[..., 1] - picture[..., 2] > 80)
    assert 1000 < green.sum() < 40_000


def test_pinned_reader_fast_decode_and_tissue_method_are_used(tiled_slide, capsys):
    path = tiled_slide()
    assert described(capsys, path, "--reader", "openslide")["reader"] == "openslide"
    assert described(capsys, path, "--fast-decode")["reader"] == "tile-once-fast"
    everything = described(capsys, path, "--tissue", "none")
    assert everything["tissue_mm2"] == pytest.approx(1500 * 1200 * 0.25 / 1e6, rel=0.01)
    assert everything["n_tiles"] > described(capsys, path)["n_tiles"]


def test_mpp_comes_from_a_table_and_errors_name_it(tiled_slide, tmp_path, capsys):
    path = tiled_slide(mpp=None)
    table = tmp_path / "mpp.csv"
    table.write_text("slide,mpp\nslide.tiff,0.4\n")
    assert described(capsys, path, "--mpp-csv", table)["mpp"] == 0.4
    table.write_text("slide,mpp\nslide.tiff,x\n")
    code, _, err = run(capsys, "info", path, "--mpp-csv", table)
    assert code == 1
    assert "mpp.csv, line 2" in err


def test_unknown_reader_and_method_name_the_choices(tiled_slide, capsys):
    code, _, err = run(capsys, "info", tiled_slide(), "--reader", "magic")
    assert (code, "tile-once" in err) == (1, True)
    code, _, err = run(capsys, "info", tiled_slide(), "--tissue", "magic")
    assert (code, "hsv" in err) == (1, True)


def test_damaged_slides_give_one_line_each_and_no_remarks_of_libraries(tiled_slide, tmp_path):
    folder = tiled_slide("in/whole.tiff").parent
    for seed in range(12):
        (folder / f"damaged-{seed}.tiff").write_bytes(damaged(seed % 5, seed))
    program = [sys.executable, "-m", "wsi_mivpg.cli.main", "info", str(folder), "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    described = {one["slide"].rsplit("/")[-1] for one in json.loads(done.stdout)}
    assert "whole.tiff" in described
    assert done.returncode == 3
    errors = done.stderr.splitlines()
    assert len(errors) == 13 - len(described) > 0
    assert all(line.startswith("error: ") and "damaged-" in line for line in errors)
