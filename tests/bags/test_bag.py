"""Bags: what is written is read, the bytes repeat, and bad files are named."""

import dataclasses

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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
    assert (bag.layout, bag.slide_id, bag.encoder) == ("wsi-mivpg", "s1", "some-encoder")
    assert (bag.slide_mpp, bag.target_mpp, bag.tile_px, bag.slide_size_px) == (0.2528, 0.5, 224, (4000, 3000))
    for found, expected in ((bag.features, features), (bag.coords, coords), (bag.tissue_fraction, fraction)):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    assert (bag.grid == -1).all()


@st.composite
def contents(draw):
    count, dim, lost = draw(st.integers(0, 40)), draw(st.integers(1, 24)), draw(st.integers(0, 3))
    features = draw(arrays(np.float16, (count, dim), elements=st.floats(width=16)))
    coords = draw(arrays(np.int64, (count, 2), elements=st.integers(0, 2**40)))
    fraction = draw(arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    unreadable = draw(arrays(np.int64, (lost, 2), elements=st.integers(0, 2**40)))
    grid = draw(arrays(np.int32, (count, 2), elements=st.integers(0, 2**20)))
    return features, coords, fraction, unreadable, grid


@given(contents(), st.data())
def test_any_content_comes_back_whole_and_in_parts(tmp_path_factory, content, data):
    features, coords, fraction, unreadable, grid = content
    path = tmp_path_factory.mktemp("bags") / "s.h5"
    made = dataclasses.replace(PROVENANCE, feature_dim=features.shape[1])
    write_bag(path, features, coords, fraction, made, unreadable, grid)
    bag = FeatureBag.open(path)
    for found, expected in (
        (bag.features, features),
        (bag.features_view(), features),
        (bag.coords, coords),
        (bag.tissue_fraction, fraction),
        (bag.unreadable, unreadable),
        (bag.grid, grid),
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    start, stop = data.draw(st.integers(-50, 50)), data.draw(st.integers(-50, 50))
    np.testing.assert_array_equal(bag.features_at(slice(start, stop)), features[start:stop])
    if len(features):
        rows = np.array(data.draw(st.lists(st.integers(0, len(features) - 1))), dtype=np.int64)
        np.testing.assert_array_equal(bag.features_at(rows), features[rows])


def test_the_view_is_the_file_itself_and_cannot_be_written(tmp_path):
    features, _, _ = write(tmp_path / "s.h5", 300)
    view = FeatureBag.open(tmp_path / "s.h5").features_view()
    assert isinstance(view, np.memmap)
    assert view.filename == tmp_path / "s.h5"
    assert not view.flags.writeable
    np.testing.assert_array_equal(view[250:], features[250:])


def test_a_row_that_is_not_there_is_an_index_error(tmp_path):
    write(tmp_path / "s.h5", 5)
    for row in (5, -1):
        with pytest.raises(IndexError):
            FeatureBag.open(tmp_path / "s.h5").features_at(np.array([0, row]))


def test_every_array_lies_in_one_piece(tmp_path):
    write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        assert {name: dataset.chunks for name, dataset in file.items()} == dict.fromkeys(
            ("features", "coords", "tissue_fraction", "grid", "unreadable")
        )


def test_unknown_places_are_written_as_minus_one_and_without_other_tools_attributes(tmp_path):
    nan = float("nan")
    made = dataclasses.replace(PROVENANCE, coords_known=False, slide_mpp=nan, tile_size_l0=nan, slide_width_px=0)
    write_bag(tmp_path / "s.h5", np.zeros((2, 6)), np.ones((2, 2), np.int64), np.ones(2, np.float32), made)
    bag = FeatureBag.open(tmp_path / "s.h5")
    assert not bag.coords_known
    assert bag.coords.tolist() == [[-1, -1], [-1, -1]]
    assert (bag.slide_mpp, bag.tile_size_l0, bag.slide_size_px) == (None, None, None)
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["coords"][...].tolist() == [[-1, -1], [-1, -1]]
        assert not file["coords"].attrs


def test_features_beyond_float16_are_refused(tmp_path):
    features = np.full((2, 6), 1e5, np.float32)
    with pytest.raises(BagError, match="65504"):
        write_bag(tmp_path / "s.h5", features, np.zeros((2, 2), np.int64), np.ones(2, np.float32), PROVENANCE)
    assert not list(tmp_path.iterdir())


def test_a_truncated_bag_is_a_bag_error_at_any_length(tmp_path):
    write(tmp_path / "s.h5", 20)
    whole = (tmp_path / "s.h5").read_bytes()
    path = tmp_path / "cut.h5"
    for length in [*range(0, len(whole), len(whole) // 150), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(BagError, match=r"cut\.h5"):
            FeatureBag.open(path).features  # noqa: B018


def test_a_bag_that_is_cut_after_it_was_opened_is_a_bag_error(tmp_path):
    write(tmp_path / "s.h5", 2000)
    bag = FeatureBag.open(tmp_path / "s.h5")
    with (tmp_path / "s.h5").open("r+b") as stream:
        stream.truncate(5000)
    for read in (bag.features_view, lambda: bag.coords, lambda: bag.features):
        with pytest.raises(BagError, match=r"s\.h5"):
            read()


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
    file.attrs["schema"] = "wsi-mivpg-bag/2"


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
        (break_schema, r"wsi-mivpg-bag/2.*extract the slide again"),
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


def test_provenance_covers_every_attribute_of_the_schema(tmp_path):
    write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        names = {field.name for field in dataclasses.fields(BagProvenance)}
        assert set(file.attrs) == names | {"schema", "complete"}
