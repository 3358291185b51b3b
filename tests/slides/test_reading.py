"""Slides: exact fields of view, native pixels, resolution rules and clear errors."""

from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from PIL import Image

from wsi_mivpg.errors import ResolutionError, SlideError
from wsi_mivpg.slides import open_slide
from wsi_mivpg.slides.readers.tiled_tiff import true_downsample
from wsi_mivpg.slides.reading import coarsest_level


def test_native_region_equals_openslide_pixels(tiled_slide):
    path = tiled_slide()
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        ours = slide.read_region(311, 173, (250, 190), slide.mpp)
        theirs = np.asarray(peer.read_region((311, 173), 0, (250, 190)).convert("RGB"))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("name", "x", "y"), [("CMU-1-Small-Region.svs", 700, 900), ("lungscc_HE3.tiff", 9001, 7003)])
def test_native_region_of_a_real_slide_equals_openslide_pixels(shared_data, name, x, y):
    path = shared_data / "slides" / name
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        ours = slide.read_region(x, y, 224, slide.mpp)
        theirs = np.asarray(peer.read_region((x, y), 0, (224, 224)).convert("RGB"))
    assert np.array_equal(ours, theirs)


def test_tiles_equal_a_crop_of_one_resampled_slide(tiled_slide):
    path = tiled_slide(mpp=0.26, levels=1)
    with open_slide(path) as slide:
        whole = slide.read_region(0, 0, (260, 260), 0.5)  # 500 px of level 0
        tile = slide.read_region(100, 200, 52, 0.5)  # 100 px of level 0
    assert np.array_equal(whole[104:156, 52:104], tile)


@pytest.mark.parametrize("mpp", [0.2528, 0.263, 0.499])
def test_field_of_view_is_exact_for_odd_microns_per_pixel(tmp_path, mpp):
    """A ramp's grey tells the position: each output pixel must show the place that its geometry says."""
    ramp = np.repeat(np.linspace(0, 250, 2000).astype(np.float32)[None, :], 600, axis=0)
    path = tmp_path / "ramp.tiff"
    pixels = np.repeat(np.rint(ramp)[..., None], 3, axis=2).astype(np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    with open_slide(path, mpp=mpp) as slide:
        seen = slide.read_region(600.4, 10.7, 224, 0.5).mean(axis=(0, 2))
    centres_l0 = 600.4 + (np.arange(224) + 0.5) * 0.5 / mpp - 0.5
    grey_per_l0_px = 250 / 1999
    shift_l0 = np.mean(seen - centres_l0 * grey_per_l0_px) / grey_per_l0_px
    assert abs(shift_l0) < 1
    slope_l0 = np.polyfit(centres_l0, seen, 1)[0] / grey_per_l0_px
    assert abs(slope_l0 - 1) * 224 * 0.5 / mpp < 1


def test_coarser_level_shows_the_same_place_as_level_zero(shared_data):
    path = shared_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    with open_slide(path, mpp=0.25) as slide:
        assert slide.downsamples == (1.0, 2.0)
        from_level_1 = slide.read_region(3600, 2800, 300, 0.5).astype(float)
        level_0 = slide.read_level(3600, 2800, 0, (600, 600))
    expected = np.asarray(Image.fromarray(level_0).resize((300, 300), Image.Resampling.HAMMING)).astype(float)
    aligned = np.abs(from_level_1 - expected)[2:-2, 2:-2].mean()
    shifted = np.abs(from_level_1[:, 1:] - expected[:, :-1])[2:-2, 2:-2].mean()
    assert aligned < shifted


def test_outside_of_the_slide_is_white(tiled_slide):
    with open_slide(tiled_slide(size_px=(600, 500))) as slide:
        corner = slide.read_region(550, 450, 100, 0.5)
        before = slide.read_region(-50, -50, 100, 0.5)
    assert (corner[50:] == 255).all()
    assert (corner[:, 50:] == 255).all()
    assert (before[:50] == 255).all()


def test_thumbnail_shows_the_whole_slide_and_never_enlarges(tiled_slide):
    with open_slide(tiled_slide(size_px=(1500, 1200))) as slide:
        assert slide.thumbnail(300).shape == (240, 300, 3)
        assert slide.thumbnail(9000).shape == (1200, 1500, 3)


def test_large_fields_are_read_in_blocks_without_seams(tiled_slide, monkeypatch):
    path = tiled_slide(mpp=0.263, levels=1)
    with open_slide(path) as slide:
        whole = slide.thumbnail(700)
        monkeypatch.setattr("wsi_mivpg.slides.reading._BLOCK_SOURCE_PX", 300)
        in_blocks = slide.thumbnail(700)
    assert np.abs(whole.astype(int) - in_blocks.astype(int)).max() <= 1


def test_resolution_comes_from_tags_and_the_user_wins(tiled_slide):
    path = tiled_slide(mpp=0.2528)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.2528, rel=1e-4)
        assert slide.mpp_source == "tiff tags"
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "user")


@pytest.mark.parametrize("mpp", [None, 352.9, 0.001, (0.25, 0.26)])
def test_missing_absurd_or_uneven_resolution_is_refused_and_names_the_way_out(tiled_slide, mpp):
    with pytest.raises(ResolutionError, match="--mpp"):
        open_slide(tiled_slide(mpp=mpp))


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), 100.0])
def test_a_user_resolution_that_is_absurd_is_refused(tiled_slide, mpp):
    with pytest.raises(ResolutionError):
        open_slide(tiled_slide(), mpp=mpp)


def test_flat_image_opens_through_tiffslide(shared_data):
    with open_slide(shared_data / "slides" / "kidney-48-5.tif", mpp=0.5) as slide:
        assert slide.reader == "tiffslide"
        assert slide.size_px == (1493, 901)
        assert slide.read_region(100, 100, 64, 1.0).shape == (64, 64, 3)


@pytest.mark.parametrize("content", [b"", b"hello", b"II*\x00" + b"\x00" * 100, b"\x89PNG\r\n\x1a\n"])
def test_garbage_gives_a_slide_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "broken.svs"
    path.write_bytes(content)
    with pytest.raises(SlideError, match=r"broken\.svs"):
        open_slide(path)


def test_truncated_slide_gives_a_slide_error(tiled_slide):
    path = tiled_slide(levels=1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError, match=r"slide\.tiff"), open_slide(path, mpp=0.5) as slide:
        slide.thumbnail(2000)


@pytest.mark.parametrize("name", ["pathml_smalltif.tif", "pathml_small_dicom.dcm"])
def test_files_that_are_no_slides_give_a_slide_error(shared_data, name):
    with pytest.raises(SlideError, match=name):
        open_slide(shared_data / "slides" / name, mpp=0.5)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(SlideError, match="no such file"):
        open_slide(tmp_path / "absent.svs")
    with pytest.raises(SlideError, match="folder"):
        open_slide(tmp_path)


def test_unicode_names_open(tiled_slide):
    with open_slide(tiled_slide("şlayt größe 1.tiff")) as slide:
        assert slide.size_px == (1500, 1200)


def test_fingerprint_follows_the_bytes_not_the_name(tiled_slide, tmp_path: Path):
    path = tiled_slide()
    copy = tmp_path / "copy.tiff"
    copy.write_bytes(path.read_bytes())
    with open_slide(path) as one, open_slide(copy) as two, open_slide(tiled_slide("o.tiff", seed=1)) as three:
        assert one.fingerprint() == two.fingerprint() != three.fingerprint()


def test_level_choice_tolerates_a_thousandth_and_never_upsamples():
    assert coarsest_level((1.0, 4.0, 16.0), 1.9) == 0
    assert coarsest_level((1.0, 4.0, 16.0), 3.997) == 1
    assert coarsest_level((1.0, 4.0, 16.0), 0.5) == 0


def test_aperio_downsamples_are_whole_and_others_follow_their_sizes():
    assert true_downsample("aperio", 2.0005) == 2.0
    assert true_downsample("generic-tiff", 4.0007) == 4.0007
    assert true_downsample("aperio", 2.5) == 2.5


@pytest.mark.parametrize("name", ["gcp_camelyon_multiframe_jpeg.dcm", "gcp_camelyon_multiframe_jp2k.dcm"])
def test_a_dicom_slide_names_its_study_series_and_instance(shared_data, name):
    path = shared_data / "slides" / name
    header = pydicom.dcmread(path, stop_before_pixels=True)
    with open_slide(path, mpp=0.5) as slide:
        assert slide.dicom == (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)


def test_a_slide_that_is_not_dicom_names_none(tiled_slide):
    with open_slide(tiled_slide()) as slide:
        assert slide.dicom is None
    with open_slide(tiled_slide(), reader="openslide") as slide:
        assert slide.dicom is None
