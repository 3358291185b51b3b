"""Bags: what is written is read, the bytes repeat, and bad files are named."""

import dataclasses

import h5py
import numpy as np
import pytest

from tests import provenance
from wsi_mivpg.bags import BagProvenance, FeatureBag, write_bag
from wsi_mivpg.errors import BagError

PROVENANCE = dataclasses.replace(provenance.PROVENANCE, feature_dim=6)


def write(path, count=5):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 6)).astype(np.float16)
    coords = rng.integers(0, 3000, size=(count, 2))
    fraction = rng.random(count).astype(np.float32)
    write_bag(path, features, coords, fraction, PROVENANCE)
    return features, coords, fraction


@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_is_written_is_read(tmp_path, count):
    features, coords, fraction = write(tmp_path / "s.h5", count)
    bag = FeatureBag.open(tmp_path / "s.h5")
    assert len(bag) == bag.n_tiles == count
    assert bag.provenance == PROVENANCE
    for found, expected in ((bag.features, features), (bag.coords, coords), (bag.tissue_fraction, fraction)):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


def test_the_same_bag_has_the_same_bytes(tmp_path):
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_error_while_writing_leaves_the_old_bag(tmp_path, monkeypatch):
    path = tmp_path / "s.h5"
    write(path)
    before = path.read_bytes()
    monkeypatch.setattr("wsi_mivpg.bags.writing.dataclasses.asdict", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(path, 3)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


def test_arrays_that_do_not_fit_are_not_written(tmp_path):
    with pytest.raises(BagError, match="do not fit"):
        write_bag(tmp_path / "s.h5", np.zeros((2, 5)), np.zeros((2, 2)), np.zeros(2), PROVENANCE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_hdf5_is_named(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(BagError, match=r"x\.h5"):
        FeatureBag.open(path)


def test_a_missing_bag_is_named(tmp_path):
    with pytest.raises(BagError, match="no such bag"):
        FeatureBag.open(tmp_path / "x.h5")


def break_complete(file):
    file.attrs["complete"] = False


def break_schema(file):
    file.attrs["schema"] = "other/9"


def break_attribute(file):
    del file.attrs["slide_mpp"]


def break_type(file):
    file.attrs["tile_px"] = "many"


def break_dataset(file):
    del file["coords"]


def break_length(file):
    del file["coords"]
    file["coords"] = np.zeros((3, 2), np.int64)


def break_dim(file):
    file.attrs["feature_dim"] = 7


def break_dtype(file):
    del file["features"]
    file["features"] = np.zeros((5, 6), np.float64)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_complete, "incomplete"),
        (break_schema, "other/9"),
        (break_attribute, "slide_mpp"),
        (break_type, "a wrong type"),
        (break_dataset, "coords"),
        (break_length, r"coords .*\(3, 2\)"),
        (break_dim, "features"),
        (break_dtype, "float64"),
    ],
)
def test_a_damaged_bag_says_what_is_wrong(tmp_path, damage, said):
    path = tmp_path / "s.h5"
    write(path)
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(BagError, match=said):
        FeatureBag.open(path)


def test_other_tools_bags_are_refused_clearly(shared_data):
    for path in (shared_data / "bags").rglob("features.h5"):
        with pytest.raises(BagError, match="schema None"):
            FeatureBag.open(path)


def test_provenance_covers_every_attribute_of_the_schema(tmp_path):
    write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        names = {field.name for field in dataclasses.fields(BagProvenance)}
        assert set(file.attrs) == names | {"schema", "complete"}
