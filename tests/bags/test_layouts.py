"""Other tools' files open as they are: the features are theirs, and nothing is claimed that they do not state."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.bags import other_tools
from tests.bags.other_tools import SIDE_L0, SLIDE_MPP, SLIDE_PX, TILE_PX
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.errors import BagError

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(7, 512)).astype(np.float32)
COORDS = np.stack([RNG.permutation(50)[:7], RNG.permutation(50)[:7]], axis=1) * SIDE_L0


def test_trident_features_open_with_encoder_places_and_sizes(tmp_path):
    path = other_tools.trident(tmp_path, FEATURES, COORDS)
    bag = FeatureBag.open(path)
    assert (bag.layout, bag.slide_id, bag.encoder, bag.n_tiles) == ("trident", "slide", "uni_v1", 7)
    assert (bag.tile_px, bag.tile_size_l0, bag.slide_size_px) == (TILE_PX, SIDE_L0, SLIDE_PX)
    assert bag.features.dtype == np.float16
    np.testing.assert_array_equal(bag.features, FEATURES.astype(np.float16))
    np.testing.assert_array_equal(bag.coords, COORDS)
    assert bag.target_mpp is None  # a magnification is no resolution
    assert FeatureBag.open(path, slide_mpp=SLIDE_MPP).target_mpp == 0.5


def test_trident_files_of_before_the_encoder_was_stated_take_it_from_the_folder(tmp_path):
    path = other_tools.trident(tmp_path, FEATURES, COORDS, encoder="phikon")
    with h5py.File(path, "a") as file:
        del file["features"].attrs["encoder"]
    assert FeatureBag.open(path).encoder == "phikon"


def test_clam_features_open_and_leave_unknown_what_clam_does_not_state(tmp_path):
    bag = FeatureBag.open(other_tools.clam(tmp_path, FEATURES, COORDS))
    assert (bag.layout, bag.slide_id, bag.feature_dim) == ("clam", "slide", 512)
    np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(bag.coords, COORDS)
    assert bag.coords.dtype == np.int64
    assert (bag.encoder, bag.target_mpp, bag.tile_size_l0, bag.slide_size_px) == (None, None, None, None)


def test_the_same_attribute_means_another_side_in_clam_and_in_wsinfer(tmp_path):
    of_clam = FeatureBag.open(other_tools.clam_places(tmp_path / "a", COORDS, level=1, downsample=2.0))
    of_wsinfer = FeatureBag.open(other_tools.wsinfer(tmp_path / "b", COORDS))
    assert (of_clam.layout, of_wsinfer.layout) == ("clam", "wsinfer")
    assert of_clam.tile_size_l0 == 256 * 2
    assert of_wsinfer.tile_size_l0 == SIDE_L0
    assert of_wsinfer.target_mpp == 0.5
    for bag in (of_clam, of_wsinfer):
        assert bag.features.shape == (7, 0)
        np.testing.assert_array_equal(bag.coords, COORDS)


def test_trident_places_alone_open(tmp_path):
    bag = FeatureBag.open(other_tools.trident_places(tmp_path, COORDS))
    assert (bag.layout, bag.slide_id, bag.feature_dim, bag.encoder) == ("trident", "slide", 0, None)
    np.testing.assert_array_equal(bag.coords, COORDS)


def test_stamp_places_are_microns_until_the_slides_mpp_is_told(tmp_path):
    path = other_tools.stamp(tmp_path, FEATURES, COORDS)
    bag = FeatureBag.open(path)
    assert (bag.layout, bag.encoder, bag.target_mpp, bag.tile_px) == ("stamp", "mahmood-uni", 0.5, TILE_PX)
    assert not bag.coords_known
    assert (bag.coords == -1).all()
    np.testing.assert_allclose(bag.stored_coords, COORDS * SLIDE_MPP)
    told = FeatureBag.open(path, slide_mpp=SLIDE_MPP)
    assert told.tile_size_l0 == SIDE_L0
    np.testing.assert_array_equal(told.coords, COORDS)


def test_stamps_older_name_of_the_tile_size_counts_only_with_its_unit(tmp_path):
    path = other_tools.stamp(tmp_path, FEATURES, COORDS)
    with h5py.File(path, "a") as file:
        file.attrs["tile_size"] = file.attrs["tile_size_um"]
        del file.attrs["tile_size_um"], file.attrs["tile_size_px"]
    bag = FeatureBag.open(path, slide_mpp=SLIDE_MPP)
    assert (bag.layout, bag.tile_size_l0, bag.target_mpp) == ("stamp", SIDE_L0, None)
    with h5py.File(path, "a") as file:
        del file.attrs["unit"]
    assert not FeatureBag.open(path, slide_mpp=SLIDE_MPP).coords_known


def test_stamp_features_of_a_patient_are_refused(tmp_path):
    path = other_tools.stamp(tmp_path, FEATURES, COORDS)
    with h5py.File(path, "a") as file:
        file.attrs["feat_type"] = "patient"
    with pytest.raises(BagError, match="a whole patient"):
        FeatureBag.open(path)


def test_atlaspatch_asks_which_encoder_where_a_file_has_several(tmp_path):
    path = other_tools.atlaspatch(tmp_path, {"uni_v2": FEATURES, "resnet50": FEATURES[:, :64]}, COORDS)
    with pytest.raises(BagError, match="resnet50, uni_v2; choose one"):
        FeatureBag.open(path)
    with pytest.raises(BagError, match="no features of 'virchow'; it has: resnet50, uni_v2"):
        FeatureBag.open(path, encoder="virchow")
    bag = FeatureBag.open(path, encoder="resnet50")
    assert (bag.layout, bag.encoder, bag.feature_dim) == ("atlaspatch", "resnet50", 64)
    assert (bag.slide_mpp, bag.target_mpp, bag.slide_size_px) == (SLIDE_MPP, 0.5, SLIDE_PX)
    np.testing.assert_array_equal(bag.features, FEATURES[:, :64])
    np.testing.assert_array_equal(bag.coords, COORDS)


def test_atlaspatch_with_one_encoder_needs_no_choice(tmp_path):
    assert FeatureBag.open(other_tools.atlaspatch(tmp_path, {"uni_v2": FEATURES}, COORDS)).encoder == "uni_v2"


def test_histogpt_rows_and_columns_become_level_0_x_and_y(tmp_path):
    bag = FeatureBag.open(other_tools.histogpt(tmp_path, FEATURES, COORDS))
    assert (bag.layout, bag.encoder, bag.slide_size_px) == ("histogpt", "ctranspath", SLIDE_PX)
    assert (bag.tile_px, bag.tile_size_l0) == (256, 512)
    assert bag.features.dtype == np.float32
    np.testing.assert_array_equal(bag.coords, COORDS)


def test_histogpt_places_of_several_scenes_or_of_an_unknown_scale_are_not_known(tmp_path):
    several = FeatureBag.open(other_tools.histogpt(tmp_path / "a", FEATURES, COORDS, scenes=2))
    renamed = other_tools.histogpt(tmp_path / "b", FEATURES, COORDS)
    renamed = renamed.rename(tmp_path / "b" / "slide.h5")
    for bag in (several, FeatureBag.open(renamed)):
        assert not bag.coords_known
        assert bag.stored_coords.shape == (7, 3)


def test_mopadi_states_no_axes_so_that_its_places_are_not_known(tmp_path):
    path = other_tools.mopadi(tmp_path, FEATURES, COORDS)
    for bag in (FeatureBag.open(path), FeatureBag.open(other_tools.mopadi_named(tmp_path, FEATURES))):
        assert bag.layout == "mopadi"
        assert bag.slide_id == bag.path.parent.name
        assert not bag.coords_known
        np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(FeatureBag.open(path).stored_coords, COORDS)


def test_real_mopadi_files_open(shared_data):
    shapes = {}
    for path in (shared_data / "bags").rglob("features.h5"):
        bag = FeatureBag.open(path)
        assert bag.layout == "mopadi"
        with h5py.File(path) as file:
            stored = file["feats" if "feats" in file else "features"][...]
        np.testing.assert_array_equal(bag.features, stored)
        np.testing.assert_array_equal(bag.features_at(np.array([100, 3, 100])), stored[[100, 3, 100]])
        shapes[bag.slide_id] = bag.features.shape
    assert shapes == {"TCGA-AD-6964-01Z-00-DX1": (777, 512), "TCGA-3X-AAVA-01Z-00-DX1": (180, 512)}


def test_slidechat_tables_give_their_first_512_columns(tmp_path):
    bag = FeatureBag.open(other_tools.slidechat(tmp_path, FEATURES, COORDS))
    assert (bag.layout, bag.slide_id, bag.n_tiles) == ("slidechat-csv", "TCGA-XX-0002-01Z-00-DX1", 7)
    np.testing.assert_array_equal(bag.features, FEATURES)
    assert not bag.coords_known
    np.testing.assert_array_equal(bag.stored_coords, COORDS)


def test_a_narrow_table_is_no_bag(tmp_path):
    (tmp_path / "failures.csv").write_text("slide,error\na,b\n")
    with pytest.raises(BagError, match="2 columns"):
        FeatureBag.open(tmp_path / "failures.csv")


@pytest.mark.parametrize("batched", [False, True], ids=["(N, D)", "(1, N, D)"])
@pytest.mark.parametrize("kind", ["npy", "pt", "pt in a dictionary", "old pt", "h5"])
def test_features_alone_open_with_or_without_a_leading_axis(tmp_path, kind, batched):
    array = FEATURES[None] if batched else FEATURES
    if kind == "npy":
        np.save(path := tmp_path / "slide.npy", array)
    elif kind == "h5":
        with h5py.File(path := tmp_path / "slide.h5", "w") as file:
            file["features"] = array
    else:
        tensor = torch.from_numpy(array)
        content = {"embeddings": tensor} if kind == "pt in a dictionary" else tensor
        torch.save(content, path := tmp_path / "slide.pt", _use_new_zipfile_serialization=kind != "old pt")
    bag = FeatureBag.open(path, encoder="uni", target_mpp=0.5, tile_px=224)
    assert (bag.slide_id, bag.n_tiles, bag.feature_dim) == ("slide", 7, 512)
    assert (bag.encoder, bag.target_mpp, bag.tile_px, bag.coords_known) == ("uni", 0.5, 224, False)
    np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(bag.features_view(), FEATURES)
    np.testing.assert_array_equal(bag.features_at(slice(2, 5)), FEATURES[2:5])
    np.testing.assert_array_equal(bag.features_at(np.array([6, 0])), FEATURES[[6, 0]])


def test_bfloat16_tensors_keep_their_values(tmp_path):
    tensor = torch.from_numpy(FEATURES).bfloat16()
    torch.save(tensor, tmp_path / "slide.pt")
    np.testing.assert_array_equal(FeatureBag.open(tmp_path / "slide.pt").features, tensor.float().numpy())


class Malice:
    """Runs code where a pickle is loaded without care."""

    def __reduce__(self):
        return (Path.touch, (Path("malice-ran"),))


def test_a_pt_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"features": torch.zeros(3, 4), "more": Malice()}, tmp_path / "slide.pt")
    with pytest.raises(BagError, match="weights_only=True"):
        FeatureBag.open(tmp_path / "slide.pt")
    assert not Path("malice-ran").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"features": np.zeros(768)}, "one vector of 768"),
        ({"features": np.zeros((2, 3, 4))}, r"\(2, 3, 4\)"),
        ({"features": np.zeros((3, 4)), "coords": np.zeros((2, 2))}, "do not fit 3 tiles"),
        ({"feats": np.array([b"a", b"b"])}, "no array of numbers"),
        ({"logits": np.zeros((3, 4))}, "no known layout: it holds logits"),
    ],
)
def test_a_file_that_is_no_bag_says_why(tmp_path, content, said):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in content.items():
            file[name] = array
    with pytest.raises(BagError, match=said):
        FeatureBag.open(tmp_path / "x.h5")


def test_what_is_told_may_not_contradict_the_file(tmp_path):
    path = other_tools.stamp(tmp_path, FEATURES, COORDS)
    with pytest.raises(BagError, match=r"target_mpp is 0.5, not 0.25"):
        FeatureBag.open(path, target_mpp=0.25)
    assert FeatureBag.open(path, target_mpp=0.5001).target_mpp == 0.5


WRITERS = {
    "trident.h5": lambda folder: other_tools.trident(folder, FEATURES, COORDS),
    "clam.h5": lambda folder: other_tools.clam(folder, FEATURES, COORDS),
    "stamp.h5": lambda folder: other_tools.stamp(folder, FEATURES, COORDS),
    "wsinfer.h5": lambda folder: other_tools.wsinfer(folder, COORDS),
    "slidechat.csv": lambda folder: other_tools.slidechat(folder, FEATURES, COORDS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_file_is_a_bag_error_at_any_length(tmp_path, name):
    whole = WRITERS[name](tmp_path).read_bytes()
    path = tmp_path / f"cut{Path(name).suffix}"
    lengths = [len(whole) * part // 40 for part in range(40)]
    for length in lengths if path.suffix == ".h5" else [*lengths[:7], len(whole) - 40]:
        path.write_bytes(whole[:length])
        with pytest.raises(BagError, match="cut"):
            FeatureBag.open(path).features  # noqa: B018


@pytest.mark.parametrize("kind", ["npy", "pt"])
def test_a_truncated_array_is_a_bag_error_at_any_length(tmp_path, kind):
    path = tmp_path / f"slide.{kind}"
    np.save(path, FEATURES) if kind == "npy" else torch.save(torch.from_numpy(FEATURES), path)
    whole = path.read_bytes()
    for part in range(40):
        path.write_bytes(whole[: len(whole) * part // 40])
        with pytest.raises(BagError, match="slide"):
            FeatureBag.open(path).features  # noqa: B018
