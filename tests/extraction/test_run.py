"""Extraction: slides become bags, runs resume, and one bad slide never stops the others."""

import csv

import numpy as np
import pydicom
import pytest
import tifffile

from tests.conftest import Rectangle
from tests.extraction.driver import MeanColour
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.errors import BagError, ResolutionError, SlideError
from wsi_mivpg.extraction import SlideSettings, extract_many, extract_slide, find_slides, slide_input
from wsi_mivpg.slides import open_slide


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_each_feature_belongs_to_its_tile(tiled_slide, tmp_path, batch_size):
    path = tiled_slide(mpp=0.263)
    encoder = MeanColour()
    result = extract_slide(path, encoder, tmp_path / "bags", batch_size=batch_size)
    bag = FeatureBag.open(result.bag_path)
    assert 20 < result.n_tiles == len(bag) <= sum(encoder.batches) < len(bag) + batch_size
    assert set(encoder.batches) == {batch_size}  # one shape, whatever is left for the last one
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
    assert not [file for file in (tmp_path / "cut").iterdir() if ".h5" in file.name]
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
    slides = find_slides([tmp_path / "in"])
    summary = extract_many(slides, tmp_path / "bags", [MeanColour()], on_progress=seen.append)
    assert [result.slide_id for result in summary.results] == ["a", "c"]
    assert [failure.slide.rpartition("/")[2] for failure in summary.failures] == ["b.tiff", "d.svs"]
    with (tmp_path / "bags" / "failures.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["slide"].rsplit("/")[-1] for row in rows] == ["b.tiff", "d.svs"]
    assert "--mpp" in rows[0]["error"]
    last = max((one for one in seen if one.slide_id == "c"), key=lambda one: one.done)
    assert (last.slide_number, last.n_slides) == (4, 4)
    assert last.done == last.total > 0


def test_a_clean_run_removes_the_failures_of_an_earlier_one(tiled_slide, tmp_path):
    slides = [slide_input(tiled_slide("in/a.tiff", mpp=None))]
    assert extract_many(slides, tmp_path / "bags", [MeanColour()]).failures
    assert (tmp_path / "bags" / "failures.csv").exists()
    assert not extract_many(slides, tmp_path / "bags", [MeanColour()], settings=SlideSettings(mpp=0.5)).failures
    names = sorted(file.name for file in (tmp_path / "bags").iterdir() if not file.name.startswith("."))
    assert names == ["a.h5", "status.csv", "summary.md"]


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
    with pytest.raises(SlideError, match="none of its tiles"):
        extract_slide(path, MeanColour(), tmp_path)


def test_what_a_killed_run_left_of_the_status_files_is_removed(tiled_slide, tmp_path):
    leftovers = [tmp_path / f".{name}.123.tmp" for name in ("status.csv", "failures.csv", "summary.md")]
    for leftover in leftovers:
        leftover.write_text("half")
    extract_slide(tiled_slide(), MeanColour(), tmp_path)
    assert not any(leftover.exists() for leftover in leftovers)


def test_the_bag_of_a_dicom_slide_states_its_uids_and_another_slides_does_not(shared_data, tiled_slide, tmp_path):
    path = shared_data / "slides" / "gcp_camelyon_multiframe_jpeg.dcm"
    header = pydicom.dcmread(path, stop_before_pixels=True)
    settings = SlideSettings(mpp=0.5, tissue="none")
    made = FeatureBag.open(extract_slide(path, MeanColour(), tmp_path, settings=settings).bag_path).provenance
    uids = (made.dicom_study_uid, made.dicom_series_uid, made.dicom_instance_uid)
    assert uids == (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
    other = FeatureBag.open(extract_slide(tiled_slide(), MeanColour(), tmp_path).bag_path).provenance
    assert other.dicom_study_uid == other.dicom_series_uid == other.dicom_instance_uid == ""
