"""One file for all: other tools' own ways of reading find in our bag what they look for, and mean the same by it."""

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.bags import other_tools
from tests.provenance import PROVENANCE
from wsi_mivpg.bags import FeatureBag, write_bag
from wsi_mivpg.bags.convert import convert_bag
from wsi_mivpg.errors import BagError

RNG = np.random.default_rng(1)
FEATURES = RNG.normal(size=(12, 6)).astype(np.float16)
GRID = np.array([(column, row) for row in range(3) for column in range(4)], dtype=np.int32)
MADE = replace(PROVENANCE, feature_dim=6)
COORDS = np.rint(GRID * MADE.tile_size_l0).astype(np.int64)
FIELD_OF_VIEW_UM = 224 * 0.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bags" / "s1.h5"
    write_bag(path, FEATURES, COORDS, np.ones(12, np.float32), MADE, grid=GRID)
    return path


def test_clam_finds_features_and_level_0_places(path):
    with h5py.File(path) as file:  # as CLAM's Generic_MIL_Dataset does
        features, coords = torch.from_numpy(file["features"][:]), file["coords"][:]
    assert features.shape == (12, 6)
    np.testing.assert_array_equal(coords, COORDS)


def test_the_patch_that_clam_would_read_covers_the_tile(path):
    with h5py.File(path) as file:  # as CLAM's Whole_Slide_Bag_FP does: a region of patch_size at patch_level
        side, level = file["coords"].attrs["patch_size"], file["coords"].attrs["patch_level"]
    assert level == 0
    assert side * MADE.slide_mpp == pytest.approx(FIELD_OF_VIEW_UM, abs=MADE.slide_mpp / 2)


@pytest.mark.parametrize("reads_whole_numbers", [False, True])
def test_the_patch_that_trident_would_read_covers_the_tile(path, reads_whole_numbers):
    with h5py.File(path) as file:  # as TRIDENT reads a file of coordinates
        stated = dict(file["coords"].attrs)
    patch_size, source, target = (
        stated[name] for name in ("patch_size", "level0_magnification", "target_magnification")
    )
    if reads_whole_numbers:
        source, target = int(source), int(target)
    assert round(patch_size * source / target) == stated["patch_size_level0"]
    assert stated["patch_size_level0"] * MADE.slide_mpp == pytest.approx(FIELD_OF_VIEW_UM, abs=MADE.slide_mpp / 2)
    assert (stated["level0_width"], stated["level0_height"], stated["overlap"]) == (4000, 3000, 0)


def test_tridents_slide_encoders_find_what_they_ask_for(path):
    with h5py.File(path) as file:  # as TRIDENT's extract_slide_features does
        coords, features, stated = file["coords"][:], file["features"][:], dict(file["coords"].attrs)
    assert torch.from_numpy(features).float().unsqueeze(0).shape == (1, 12, 6)
    assert torch.from_numpy(coords).dtype == torch.int64
    assert int(stated["patch_size_level0"]) == 443


def test_overlapping_tiles_state_their_overlap(tmp_path):
    made = replace(MADE, stride_px=112)
    write_bag(tmp_path / "s.h5", FEATURES, COORDS, np.ones(12, np.float32), made)
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["coords"].attrs["overlap"] == 222  # of 443 level-0 px


def test_torchmil_reads_our_file_as_it_is(path):
    datasets = pytest.importorskip("torchmil.datasets", reason="torchmil is not installed: pip install torchmil")
    folder = str(path.parent)
    bags = datasets.ProcessedMILDataset(
        features_path=folder, coords_path=folder, bag_keys=["X", "coords"], file_ext=".h5", load_at_init=False
    )
    assert bags.get_bag_names() == ["s1"]
    assert torch.equal(bags[0]["X"], torch.from_numpy(FEATURES))
    np.testing.assert_array_equal(bags[0]["coords"], COORDS)


def test_torchmil_reads_our_file_in_tridents_place(path, tmp_path):
    datasets = pytest.importorskip("torchmil.datasets", reason="torchmil is not installed: pip install torchmil")
    base = tmp_path / "20x_224px_0px_overlap"
    for link in (base / "features_e" / "s1.h5", base / "patches" / "s1_patches.h5"):
        link.parent.mkdir(parents=True)
        link.symlink_to(path)
    assert_neighbours(_torchmil(datasets, base, "e", patch_size=443)[0])


def test_torchmil_reads_what_is_converted_to_trident(path, tmp_path):
    datasets = pytest.importorskip("torchmil.datasets", reason="torchmil is not installed: pip install torchmil")
    convert_bag(FeatureBag.open(path), tmp_path / "out", "trident")
    base = tmp_path / "out" / "20x_224px_0px_overlap"
    assert_neighbours(_torchmil(datasets, base, "some-encoder", patch_size=443)[0])


def _torchmil(datasets, base: Path, encoder: str, patch_size: int):
    with (base.parent / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("slide", "label"), ("s1.svs", 1)])
    return datasets.TridentWSIDataset(
        base_path=f"{base}/",
        labels_path=str(base.parent / "labels.csv"),
        feature_extractor=encoder,
        bag_keys=["X", "Y", "adj", "coords"],
        patch_size=patch_size,
        wsi_name_col="slide",
        wsi_label_col="label",
        norm_adj=False,
    )


def assert_neighbours(bag) -> None:
    """torchmil's grid of our tiles joins those that touch, corners included, and no others."""
    np.testing.assert_array_equal(bag["X"].numpy(), FEATURES)
    distance = np.abs(GRID[:, None] - GRID[None]).max(axis=2)
    np.testing.assert_array_equal(bag["adj"].to_dense().numpy() > 0, distance == 1)


def test_converted_to_clam_the_files_are_clams(path, tmp_path):
    written = convert_bag(FeatureBag.open(path), tmp_path / "clam", "clam")
    assert [str(one.relative_to(tmp_path / "clam")) for one in written] == [
        "pt_files/s1.pt",
        "h5_files/s1.h5",
        "patches/s1.h5",
    ]
    tensor = torch.load(written[0], weights_only=True)
    assert tensor.dtype == torch.float32
    with h5py.File(written[1]) as file, h5py.File(other_tools.clam(tmp_path, FEATURES, COORDS)) as theirs:
        for name in theirs:
            assert (file[name].dtype, file[name].chunks, file[name].maxshape) == (
                theirs[name].dtype,
                theirs[name].chunks,
                theirs[name].maxshape,
            )
            np.testing.assert_array_equal(file[name], theirs[name])
        np.testing.assert_array_equal(file["features"], tensor.numpy())
    bag = FeatureBag.open(written[2])
    assert (bag.layout, bag.tile_size_l0, bag.slide_size_px) == ("clam", 443, (4000, 3000))


def test_converted_to_trident_the_files_are_tridents(path, tmp_path):
    patches, features = convert_bag(FeatureBag.open(path), tmp_path / "out", "trident")
    theirs = other_tools.trident(tmp_path, FEATURES.astype(np.float32), COORDS)
    with h5py.File(features) as file, h5py.File(theirs) as other:
        for name in other:
            assert (file[name].dtype, file[name].chunks, file[name].maxshape) == (
                other[name].dtype,
                other[name].chunks,
                other[name].maxshape,
            )
            assert set(file[name].attrs) == set(other[name].attrs)
        stated = dict(file["coords"].attrs)
    assert stated["target_magnification"] == 20
    assert round(224 * stated["level0_magnification"] / 20) == stated["patch_size_level0"] == 443
    again = FeatureBag.open(features, slide_mpp=MADE.slide_mpp)
    assert (again.layout, again.encoder, again.tile_px) == ("trident", "some-encoder", 224)
    assert again.target_mpp == pytest.approx(0.5, rel=0.002)
    np.testing.assert_array_equal(again.features, FEATURES)
    np.testing.assert_array_equal(again.coords, COORDS)
    assert FeatureBag.open(patches).slide_id == "s1"


def test_there_and_back_keeps_features_places_and_contract(path, tmp_path):
    ours = FeatureBag.open(path)
    theirs = convert_bag(ours, tmp_path / "out", "trident")[1]
    told = FeatureBag.open(theirs, slide_mpp=MADE.slide_mpp)
    again = FeatureBag.open(convert_bag(told, tmp_path / "back", "wsi-mivpg", MADE.encoder_weights_sha256)[0])
    assert again.layout == "wsi-mivpg"
    assert (again.encoder, again.encoder_weights_sha256, again.tile_px) == (ours.encoder, "abc", 224)
    assert again.slide_size_px == ours.slide_size_px
    np.testing.assert_array_equal(again.features, FEATURES)
    np.testing.assert_array_equal(again.coords, COORDS)
    assert np.isnan(again.tissue_fraction).all()


def test_features_alone_become_a_bag_whose_places_are_not_known(tmp_path):
    np.save(tmp_path / "x.npy", FEATURES)
    bare = FeatureBag.open(tmp_path / "x.npy", encoder="e", target_mpp=0.5, tile_px=224)
    bag = FeatureBag.open(convert_bag(bare, tmp_path / "out", "wsi-mivpg")[0])
    assert (bag.coords_known, bag.target_mpp, bag.encoder) == (False, 0.5, "e")
    assert [one.name for one in convert_bag(bag, tmp_path / "clam", "clam")] == ["x.pt"]
    with pytest.raises(BagError, match="--slide-mpp"):
        convert_bag(bag, tmp_path / "trident", "trident")


def test_a_conversion_says_what_it_must_be_told(tmp_path):
    bag = FeatureBag.open(other_tools.clam(tmp_path, FEATURES, COORDS))
    with pytest.raises(BagError, match="does not state its encoder; pass --encoder"):
        convert_bag(bag, tmp_path / "out", "wsi-mivpg")
    with pytest.raises(BagError, match="places only"):
        convert_bag(FeatureBag.open(other_tools.wsinfer(tmp_path, COORDS)), tmp_path / "out", "clam")
    with pytest.raises(BagError, match="choose one of: wsi-mivpg, clam, trident"):
        convert_bag(bag, tmp_path / "out", "stamp")
    assert not (tmp_path / "out").exists()


def test_a_conversion_replaces_nothing_unless_told_and_never_its_own_source(path, tmp_path):
    bag = FeatureBag.open(path)
    before = path.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(BagError, match="in the way"):
            convert_bag(bag, path.parent, "wsi-mivpg", overwrite=overwrite)
    assert path.read_bytes() == before
    convert_bag(bag, tmp_path / "out", "clam")
    with pytest.raises(BagError, match="in the way; pass --overwrite"):
        convert_bag(bag, tmp_path / "out", "clam")
    convert_bag(bag, tmp_path / "out", "clam", overwrite=True)


def test_a_slide_id_never_leads_out_of_the_folder(tmp_path):
    path = other_tools.trident(tmp_path, FEATURES.astype(np.float32), COORDS)
    with h5py.File(path, "a") as file:
        file["coords"].attrs["name"] = "../../escaped"
    (written,) = convert_bag(FeatureBag.open(path), tmp_path / "out", "wsi-mivpg")
    assert written.parent == tmp_path / "out"
