"""Checking names what is wrong with each bag, leaves good ones alone, and exits 3 with the list."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from tests.bags import other_tools
from tests.provenance import PROVENANCE, bag_on_disk
from wsi_mivpg.bags import write_bag
from wsi_mivpg.bags.check import check_bag_file, check_bags, find_bags
from wsi_mivpg.errors import BagError

COORDS = np.stack([np.arange(5), np.arange(5)], axis=1) * 300


def write(path, features=None, coords=COORDS, **changes):
    features = np.ones((len(coords), 12), np.float16) if features is None else features
    made = replace(PROVENANCE, feature_dim=features.shape[1], **changes)
    write_bag(path, features, coords, np.ones(len(coords), np.float32), made)
    return path


def test_a_good_bag_has_no_problem(tmp_path):
    checked = check_bag_file(write(tmp_path / "s.h5"))
    assert (checked.problems, checked.warnings) == ((), ())


def test_an_empty_bag_is_fine_but_noted(tmp_path):
    checked = check_bag_file(write(tmp_path / "s.h5", coords=COORDS[:0]))
    assert checked.problems == ()
    assert checked.warnings == ("no tiles: no tissue was found",)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinite_features_are_counted_by_tile(tmp_path, value):
    features = np.ones((5, 12), np.float16)
    features[1, 3] = features[1, 4] = features[4, 0] = value
    (problem,) = check_bag_file(write(tmp_path / "s.h5", features)).problems
    assert problem == "2 of 5 tiles have NaN or infinite features"


def test_doubled_coordinates_are_counted(tmp_path):
    coords = COORDS[[0, 1, 1, 1, 2]]
    (problem,) = check_bag_file(write(tmp_path / "s.h5", coords=coords)).problems
    assert problem == "2 of 5 coordinates are there twice"


@pytest.mark.parametrize("corner", [(-1, 0), (4000, 10), (10, 3000)])
def test_coordinates_outside_the_slide_are_named(tmp_path, corner):
    coords = np.vstack([COORDS, [corner]])
    (problem,) = check_bag_file(write(tmp_path / "s.h5", coords=coords)).problems
    assert problem.startswith("1 of 6 coordinates are outside the slide")
    assert f"x {corner[0]}, y {corner[1]}" in problem


def test_the_last_pixel_of_a_slide_is_inside(tmp_path):
    coords = np.vstack([COORDS, [(3999, 2999)]])
    assert check_bag_file(write(tmp_path / "s.h5", coords=coords)).problems == ()


def test_truncated_files_are_named(tmp_path):
    whole = write(tmp_path / "s.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    checked = check_bag_file(tmp_path / "cut.h5")
    assert checked.bag is None
    assert "damaged" in checked.problems[0]


def test_widths_are_held_against_the_encoders_and_the_other_bags(tmp_path):
    paths = [write(tmp_path / f"{name}.h5") for name in "abc"]
    paths.append(write(tmp_path / "odd.h5", np.ones((5, 8), np.float16)))
    assert [one.problems for one in check_bags(paths)][:3] == [(), (), ()]
    assert check_bags(paths)[3].problems == ("8 features per tile, but encoder 'some-encoder' has 12",)
    assert all(one.problems for one in check_bags(paths, {"some-encoder": 9}))


def test_other_tools_files_are_checked_too(tmp_path):
    features = np.ones((5, 512), np.float32)
    features[0, 0], features[1, 1], features[2] = np.nan, 1e6, 0
    checked = check_bag_file(other_tools.stamp(tmp_path / "a", features[:1], COORDS[:1]))
    assert checked.problems == ("1 of 1 tiles have NaN or infinite features",)
    checked = check_bag_file(other_tools.clam(tmp_path / "b", features[1:], COORDS[1:]))
    assert checked.problems == ()
    assert checked.warnings == (
        "1 of 4 tiles have nothing but zeros",
        "1 of 4 tiles have features that do not fit float16",
    )
    assert check_bag_file(other_tools.wsinfer(tmp_path / "c", COORDS)).warnings == ("places only, no features",)


def test_real_bags_of_another_tool_are_fine(shared_data):
    checked = check_bags(find_bags([shared_data / "bags"]))
    assert [one.problems for one in checked] == [(), ()]


def test_tables_that_are_no_features_are_left_alone_in_a_folder(tmp_path):
    write(tmp_path / "s.h5")
    (tmp_path / "failures.csv").write_text("slide,error\n")
    assert find_bags([tmp_path]) == [tmp_path / "s.h5"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match="no bag in this folder"):
        find_bags([tmp_path / "empty"])


def test_check_exits_3_with_the_list_where_something_is_wrong(run, tmp_path):
    write(tmp_path / "good.h5")
    write(tmp_path / "bad.h5", np.full((5, 12), np.nan, np.float16))
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    code, printed, _ = run("bags", "check", tmp_path, "--json")
    assert code == 3
    problems = {one["bag"].rsplit("/", 1)[1]: one["problems"] for one in json.loads(printed)}
    assert problems["good.h5"] == []
    assert problems["bad.h5"] == ["5 of 5 tiles have NaN or infinite features"]
    assert "damaged" in problems["cut.h5"][0]
    code, printed, _ = run("bags", "check", tmp_path)
    assert code == 3
    assert "1 of 3 bags are fine" in printed
    assert run("bags", "check", tmp_path / "good.h5")[0] == 0
    assert run("bags", "check", tmp_path / "nowhere.h5")[0] == 1
    code, printed, err = run("bags", "check", tmp_path / "nowhere.h5", tmp_path / "good.h5")
    assert code == 3
    assert "good.h5" in printed
    assert str(tmp_path / "nowhere.h5") in err


def test_info_says_what_is_known_and_what_is_not(run, tmp_path):
    ours = bag_on_disk(tmp_path / "ours.h5").path
    theirs = other_tools.stamp(tmp_path, np.ones((5, 512), np.float32), COORDS)
    code, printed, _ = run("bags", "info", ours, theirs, "--json")
    assert code == 0
    one, two = json.loads(printed)
    assert (one["layout"], one["coords"], one["n_tiles"]) == ("wsi-mivpg", "level-0 px", 3)
    assert (two["layout"], two["coords"], two["slide_mpp"]) == ("stamp", "um", None)
    code, printed, _ = run("bags", "info", theirs)
    assert "not stated" in printed


def test_convert_tells_the_model_what_the_file_did_not(run, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 1280), np.float32))
    known = ("--encoder", "efficientnet-lite0", "--mpp", 0.5, "--tile-px", 224)
    code, _, err = run("bags", "convert", tmp_path / "x.npy", "--to", "wsi-mivpg", "--out", tmp_path / "out")
    assert code == 1
    assert "--encoder" in err
    code, printed, _ = run(
        "bags", "convert", tmp_path / "x.npy", "--to", "wsi-mivpg", "--out", tmp_path / "out", *known, "--json"
    )
    assert code == 0
    assert json.loads(printed)[0]["written"] == [str(tmp_path / "out" / "x.h5")]
    with h5py.File(tmp_path / "out" / "x.h5") as file:
        assert len(file.attrs["encoder_weights_sha256"]) == 64
    assert run("bags", "convert", tmp_path / "x.npy", "--to", "stamp", "--out", tmp_path / "out")[0] == 2
    assert run("bags", "check", tmp_path / "out")[0] == 0
