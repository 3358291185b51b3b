"""Pictures as bags: each picture's patch tokens in their places, and never among the tiles of slides."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipImageProcessor

from tests.conftest import Rectangle
from tests.encoders.test_published_networks import tiny
from tests.extraction.driver import MeanColour, Quarters
from tests.mivpg.blip2_checkpoints import WIDTH, publish
from tests.provenance import PROVENANCE, bag_on_disk
from wsi_mivpg.bags import FeatureBag, require_contract
from wsi_mivpg.bags.check import check_bag_file
from wsi_mivpg.encoders.load import load_encoder
from wsi_mivpg.encoders.published import load_spec
from wsi_mivpg.errors import BagError, CohortError, EncoderError, SlideError
from wsi_mivpg.extraction import extract_many, find_slides
from wsi_mivpg.extraction.image_tokens import read_squashed, token_places

COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [120, 120, 120]], np.uint8)


def quartered(path, size_px=(96, 48)):
    """Write a picture of four plain quarters, not square, as PNG."""
    width, height = size_px
    pixels = COLOURS.reshape(2, 2, 3).repeat(height // 2, axis=0).repeat(width // 2, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def photograph(path, size_px=(70, 50), seed=0):
    """Write smooth noise as PNG."""
    rough = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rough).resize(size_px, Image.Resampling.BICUBIC).save(path)
    return path


def bag_of(picture, encoder, out):
    summary = extract_many(find_slides([picture], pictures=True), out, [encoder], raise_errors=True)
    return FeatureBag.open(summary.results[0].bag_path)


def test_a_picture_becomes_its_tokens_each_in_its_place(tmp_path):
    bag = bag_of(quartered(tmp_path / "four.png"), Quarters(), tmp_path / "bags")
    assert (len(bag), bag.feature_dim, bag.encoder) == (4, 3, "quarters")
    assert bag.grid.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert bag.coords.tolist() == [[0, 0], [48, 0], [0, 24], [48, 24]]
    assert np.abs(bag.features - COLOURS).max() < 8  # bicubic resampling mixes colours where quarters meet


def test_the_bag_says_that_its_instances_are_patch_tokens_of_a_picture(tmp_path):
    bag = bag_of(quartered(tmp_path / "four.png"), Quarters(), tmp_path / "bags")
    assert bag.are_patch_tokens
    assert bag.provenance.instances == "patch tokens"
    assert (bag.slide_size_px, bag.tile_px, bag.slide_mpp, bag.target_mpp) == ((96, 48), 64, None, None)
    require_contract(bag)  # a picture has no microns, and none are asked of it
    assert not check_bag_file(bag.path).problems


def test_tiles_must_state_their_microns_still(tmp_path):
    unknown = replace(PROVENANCE, target_mpp=float("nan"))
    with pytest.raises(BagError, match="target_mpp"):
        require_contract(bag_on_disk(tmp_path / "s1.h5", unknown))


def test_bags_from_before_the_field_hold_tiles(tmp_path):
    path = bag_on_disk(tmp_path / "s1.h5").path
    with h5py.File(path, "r+") as file:
        assert file.attrs["instances"] == "tiles"
        del file.attrs["instances"]
    bag = FeatureBag.open(path)
    assert bag.provenance.instances == "tiles"
    assert not bag.are_patch_tokens


@pytest.mark.parametrize(("n_tokens", "first"), [(49, 0), (50, 1), (257, 1), (2, 1), (4, 0)])
def test_places_of_tokens(n_tokens, first):
    coords, grid = token_places(n_tokens, (640, 427))
    side = round((n_tokens - first) ** 0.5)
    assert (coords[:first] == -1).all()
    assert (grid[:first] == -1).all()
    assert len(np.unique(grid[first:], axis=0)) == side * side
    assert (grid[first:].max(axis=0) == side - 1).all()
    assert (coords[first:] >= 0).all()
    assert (coords[first:] < (640, 427)).all()
    assert np.array_equal(grid[first:] * [640, 427] // side, coords[first:])


def test_blip2s_own_checkpoint_gives_what_transformers_gives_for_the_same_file(tmp_path):
    """Shards written by transformers, its own image processor, and its vision tower."""
    model, folder = publish("blip-2", tmp_path / "blip2")
    spec = tiny("blip2-eva-vit-g", WIDTH, tile_px=8, config=model.config.vision_config.to_diff_dict())
    encoder = load_spec(spec, weights=folder, precision="fp32", patch_tokens=True)
    path = photograph(tmp_path / "photo.png")
    bag = bag_of(path, encoder, tmp_path / "bags")

    processor = BlipImageProcessor(size={"height": 8, "width": 8})
    with torch.inference_mode():
        pixels = processor(Image.open(path), return_tensors="pt")["pixel_values"]
        wanted = model.vision_model(pixels).last_hidden_state[0].numpy()
    assert bag.features.shape == wanted.shape == (1 + 4, WIDTH)
    assert np.abs(bag.features - wanted).max() < 0.02 * np.abs(wanted).max()
    assert bag.grid.tolist() == [[-1, -1], [0, 0], [1, 0], [0, 1], [1, 1]]
    assert bag.encoder == "blip2-eva-vit-g+patch-tokens"
    assert not check_bag_file(bag.path).problems  # the class token lies nowhere, and that is no fault


def test_the_picture_is_squashed_as_blip2_does(tmp_path):
    path = photograph(tmp_path / "photo.png", (640, 427))
    processor = BlipImageProcessor(size={"height": 224, "width": 224}, do_normalize=False)
    wanted = processor(Image.open(path), return_tensors="pt")["pixel_values"][0].permute(1, 2, 0).numpy() * 255
    assert np.abs(read_squashed(path, 224) - wanted).max() <= 1.01


def test_the_tokens_of_the_installed_encoder_average_to_its_tile_features(tmp_path):
    path = photograph(tmp_path / "photo.png", (300, 200))
    bag = bag_of(path, load_encoder("efficientnet-lite0", precision="fp32", patch_tokens=True), tmp_path / "bags")
    pooled = load_encoder("efficientnet-lite0", precision="fp32").encode(read_squashed(path, 224)[None])[0]
    assert bag.features.shape == (49, 1280)
    assert np.abs(bag.features.astype(np.float32).mean(axis=0) - pooled).max() < 2e-3 * np.abs(pooled).max()


def test_folders_and_manifests_of_pictures(tmp_path):
    for name in ("b/two.PNG", "a/one.jpg", "a/.hidden.png"):
        photograph(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").touch()
    found = find_slides([tmp_path / "in"], pictures=True)
    assert [(one.slide_id, one.is_picture) for one in found] == [("one", True), ("two", True)]
    (tmp_path / "m.csv").write_text("slide_id,path,case_id\nfirst,in/a/one.jpg,p1\n")
    extract_many(find_slides([tmp_path / "m.csv"], pictures=True), tmp_path / "bags", [Quarters()])
    assert FeatureBag.open(tmp_path / "bags" / "first.h5").provenance.case_id == "p1"
    with pytest.raises(SlideError, match=r"no pictures in this folder; known are .*\.webp"):
        find_slides([tmp_path / "bags"], pictures=True)


def test_a_bad_picture_fails_by_itself_and_the_others_are_kept_by_the_next_run(tmp_path):
    photograph(tmp_path / "in" / "a.png")
    content = photograph(tmp_path / "in" / "b.png", seed=1).read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "in" / "c.png").write_bytes(b"nothing")
    slides = find_slides([tmp_path / "in"], pictures=True)
    first = extract_many(slides, tmp_path / "bags", [Quarters()])
    assert [(one.slide_id, one.n_tiles) for one in first.results] == [("a", 4)]
    assert ["b.png" in first.failures[0].error, "not a PNG" in first.failures[1].error] == [True, True]
    photograph(tmp_path / "in" / "b.png", seed=1)
    photograph(tmp_path / "in" / "c.png", seed=2)
    second = extract_many(slides, tmp_path / "bags", [Quarters()])
    assert [(one.state, one.n_tiles) for one in second.results] == [("kept", 4), ("done", 4), ("done", 4)]


def test_pictures_and_slides_do_not_share_an_encoder(tiled_slide, tmp_path):
    pictures = find_slides([quartered(tmp_path / "four.png")], pictures=True)
    slides = find_slides([tiled_slide(tissue=[Rectangle(0, 0, 900, 900)])])
    with pytest.raises(EncoderError, match=r"four\.png is a whole picture, but mean-colour gives one vector"):
        extract_many(pictures, tmp_path / "bags", [MeanColour()])
    with pytest.raises(EncoderError, match=r"slide\.tiff is a slide .* but quarters gives patch tokens"):
        extract_many(slides, tmp_path / "bags", [Quarters()])


def test_bags_of_patch_tokens_and_of_tiles_are_not_trained_together(tmp_path):
    from wsi_mivpg.cohorts.case import Case
    from wsi_mivpg.training.cases import made_alike

    of_tokens = bag_on_disk(
        tmp_path / "photo.h5", replace(PROVENANCE, encoder="some-encoder+patch-tokens", instances="patch tokens")
    )
    paths = (bag_on_disk(tmp_path / "s1.h5").path, of_tokens.path)
    with pytest.raises(CohortError, match=r"differ in encoder: 'some-encoder' and 'some-encoder\+patch-tokens'"):
        made_alike([Case("c", (), paths, ("text",), "train")])


def test_the_command_takes_pictures_whole(run, tmp_path):
    quartered(tmp_path / "in" / "four.png")
    chosen = ("--encoder", "tests.extraction.driver:quarters", "--patch-tokens")
    code, out, _ = run("extract", tmp_path / "in", "--out", tmp_path / "bags", *chosen)
    assert code == 0
    assert "four" in out
    assert len(FeatureBag.open(tmp_path / "bags" / "four.h5")) == 4
    code, out, _ = run("bags", "info", tmp_path / "bags" / "four.h5")
    assert "patch tokens" in out


@pytest.mark.parametrize("option", [("--mpp", "0.5"), ("--patches",), ("--tile-px", "128")])
def test_options_of_slides_are_refused_for_pictures(run, tmp_path, option):
    quartered(tmp_path / "in" / "four.png")
    code, _, err = run("extract", tmp_path / "in", "--out", tmp_path / "bags", "--patch-tokens", *option)
    assert code == 2
    assert option[0] in err
    assert not (tmp_path / "bags").exists()
