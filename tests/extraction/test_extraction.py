"""Extraction: slides become bags, runs resume, and one bad slide never stops the others."""

import csv

import numpy as np
import pytest
import tifffile

from tests.conftest import Rectangle
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.encoders import EncoderSpec
from wsi_mivpg.errors import BagError, ResolutionError, SlideError
from wsi_mivpg.extraction import SlideSettings, extract_many, extract_slide, find_slides, unique_ids
from wsi_mivpg.slides import open_slide


class MeanColour:
    """A tile encoder without weights: the mean colour."""

    def __init__(self, sha256="0" * 64):
        self.spec = EncoderSpec(
            name="mean-colour",
            dim=3,
            tile_px=64,
            mpp=0.5,
            mean=(0, 0, 0),
            std=(1, 1, 1),
            licence="CC0-1.0",
            gated=False,
            weights_sha256=sha256,
        )
        self.batches = []

    def encode(self, tiles):
        self.batches.append(len(tiles))
        return tiles.mean(axis=(1, 2)).astype(np.float16)


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_each_feature_belongs_to_its_tile(tiled_slide, tmp_path, batch_size):
    path = tiled_slide(mpp=0.263)
    encoder = MeanColour()
    result = extract_slide(path, encoder, tmp_path / "bags", batch_size=batch_size)
    bag = FeatureBag.open(result.bag_path)
    assert result.n_tiles == len(bag) == sum(encoder.batches) > 20
    assert max(encoder.batches) <= batch_size
    with open_slide(path) as slide:
        for (x, y), feature in list(zip(bag.coords, bag.features, strict=True))[::9]:
            tile = slide.read_region(float(x), float(y), 64, 0.5)
            assert np.allclose(tile.mean(axis=(0, 1)), feature, atol=0.2)
    assert (bag.tissue_fraction >= 0.25).all()


def test_tiles_lie_on_the_painted_tissue(tiled_slide, tmp_path):
    path = tiled_slide(size_px=(2000, 2000), tissue=[Rectangle(640, 640, 640, 640)])
    bag = FeatureBag.open(extract_slide(path, MeanColour(), tmp_path, settings=SlideSettings(min_tissue=0.5)).bag_path)
    assert 90 <= len(bag) <= 130
    assert (bag.coords >= 576).all()
    assert (bag.coords <= 1280).all()


def test_provenance_tells_how_the_bag_was_made(tiled_slide, tmp_path):
    provenance = FeatureBag.open(extract_slide(tiled_slide(), MeanColour(), tmp_path).bag_path).provenance
    assert provenance.slide_id == "slide"
    assert provenance.slide_path == "slide.tiff"
    assert (provenance.slide_width_px, provenance.slide_height_px) == (1500, 1200)
    assert provenance.encoder == "mean-colour"
    assert provenance.tile_size_l0 == pytest.approx(64, rel=1e-6)


def test_two_runs_give_the_same_bytes(tiled_slide, tmp_path):
    path = tiled_slide()
    one = extract_slide(path, MeanColour(), tmp_path / "a").bag_path
    two = extract_slide(path, MeanColour(), tmp_path / "b").bag_path
    assert one.read_bytes() == two.read_bytes()


def test_a_blank_slide_gives_an_empty_bag(tiled_slide, tmp_path):
    result = extract_slide(tiled_slide(tissue=[]), MeanColour(), tmp_path)
    assert result.n_tiles == 0
    assert FeatureBag.open(result.bag_path).features.shape == (0, 3)


def test_a_finished_bag_is_kept(tiled_slide, tmp_path):
    path, encoder = tiled_slide(), MeanColour()
    first = extract_slide(path, encoder, tmp_path)
    batches = list(encoder.batches)
    second = extract_slide(path, encoder, tmp_path)
    assert (first.skipped, second.skipped) == (False, True)
    assert second.n_tiles == first.n_tiles
    assert encoder.batches == batches


def test_other_settings_are_named_unless_overwritten(tiled_slide, tmp_path):
    path = tiled_slide()
    extract_slide(path, MeanColour(), tmp_path)
    with pytest.raises(BagError, match=r"min_tissue 0\.25 there, 0\.5 now.*--overwrite"):
        extract_slide(path, MeanColour(), tmp_path, settings=SlideSettings(min_tissue=0.5))
    with pytest.raises(BagError, match="encoder_weights_sha256"):
        extract_slide(path, MeanColour("1" * 64), tmp_path)
    assert not extract_slide(
        path, MeanColour(), tmp_path, settings=SlideSettings(min_tissue=0.5), overwrite=True
    ).skipped


def test_resume_after_a_crash_gives_the_same_bytes(tiled_slide, tmp_path):
    class Crashing(MeanColour):
        def encode(self, tiles):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().encode(tiles)

    path = tiled_slide()
    whole = extract_slide(path, MeanColour(), tmp_path / "whole", batch_size=8).bag_path
    with pytest.raises(KeyboardInterrupt):
        extract_slide(path, Crashing(), tmp_path / "cut", batch_size=8)
    assert not (tmp_path / "cut").exists() or not list((tmp_path / "cut").iterdir())
    resumed = extract_slide(path, MeanColour(), tmp_path / "cut", batch_size=8).bag_path
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_slide_too_coarse_for_the_encoder_is_named(tiled_slide, tmp_path):
    with pytest.raises(ResolutionError, match=r"slide\.tiff.*1 microns"):
        extract_slide(tiled_slide(mpp=1.0), MeanColour(), tmp_path)


def test_one_bad_slide_never_stops_the_others(tiled_slide, tmp_path):
    tiled_slide("in/a.tiff", seed=1)
    tiled_slide("in/b.tiff", mpp=None)
    tiled_slide("in/deep/c.tiff", seed=2)
    (tmp_path / "in" / "d.svs").write_bytes(b"garbage")
    seen = []
    summary = extract_many([tmp_path / "in"], tmp_path / "bags", MeanColour(), seen.append)
    assert [result.slide_id for result in summary.results] == ["a", "c"]
    assert [failure.slide.name for failure in summary.failures] == ["b.tiff", "d.svs"]
    with (tmp_path / "bags" / "failures.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slide"].rsplit("/")[-1] for row in rows] == ["b.tiff", "d.svs"]
    assert "--mpp" in rows[0]["error"]
    assert (seen[-1].slide_id, seen[-1].slide_number, seen[-1].n_slides) == ("c", 4, 4)
    assert seen[-1].done == seen[-1].total > 0


def test_a_clean_run_removes_the_failures_of_an_earlier_one(tiled_slide, tmp_path):
    path = tiled_slide("in/a.tiff", mpp=None)
    assert extract_many([path], tmp_path / "bags", MeanColour()).failures
    assert not extract_many([path], tmp_path / "bags", MeanColour(), settings=SlideSettings(mpp=0.5)).failures
    assert [file.name for file in (tmp_path / "bags").iterdir()] == ["a.h5"]


def test_slides_are_found_in_folders_and_named_files_are_taken_as_they_are(tiled_slide, tmp_path):
    a, b = tiled_slide("in/a.tiff"), tiled_slide("in/deep/B.TIFF")
    (tmp_path / "in" / "notes.txt").write_text("no slide")
    (tmp_path / "in" / ".hidden.svs").write_text("")
    assert find_slides([tmp_path / "in", a]) == [a, b]
    assert find_slides([tmp_path / "in" / "notes.txt"]) == [tmp_path / "in" / "notes.txt"]


def test_an_empty_folder_and_a_missing_path_are_errors(tmp_path):
    with pytest.raises(SlideError, match="no slides in this folder"):
        find_slides([tmp_path])
    with pytest.raises(SlideError, match=r"absent\.svs"):
        find_slides([tmp_path / "absent.svs"])


def test_two_slides_of_one_name_are_both_named(tiled_slide, tmp_path):
    a, b = tiled_slide("x/a.tiff"), tiled_slide("y/a.tif")
    with pytest.raises(SlideError, match=rf"{a}.*{b}"):
        unique_ids([a, b])


def blank_out_tile(path, index):
    """Overwrite one compressed tile of level 0 with zeros, as a bad disk does."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)


def test_unreadable_tiles_are_left_out_and_named_in_the_bag(tiled_slide, tmp_path):
    path = tiled_slide()
    whole = FeatureBag.open(extract_slide(path, MeanColour(), tmp_path / "whole").bag_path)
    blank_out_tile(path, 7)  # x 256 to 511, y 256 to 511
    result = extract_slide(path, MeanColour(), tmp_path / "damaged", batch_size=10)
    bag = FeatureBag.open(result.bag_path)
    is_lost = ((whole.coords < 512) & (whole.coords + 64 > 256)).all(axis=1)
    assert is_lost.any()
    assert np.array_equal(bag.unreadable, whole.coords[is_lost])
    assert np.array_equal(bag.coords, whole.coords[~is_lost])
    assert np.array_equal(bag.features, whole.features[~is_lost])
    assert (result.n_tiles, result.n_unreadable) == (len(bag), is_lost.sum())
    again = extract_slide(path, MeanColour(), tmp_path / "damaged")
    assert (again.skipped, again.n_unreadable) == (True, is_lost.sum())


def test_a_slide_of_which_nothing_can_be_read_is_an_error(tiled_slide, tmp_path):
    path = tiled_slide()
    for index in range(30):
        blank_out_tile(path, index)
    with pytest.raises(SlideError, match=r"none of the \d+ tiles"):
        extract_slide(path, MeanColour(), tmp_path)
