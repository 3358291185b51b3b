"""Folders of patches: which patches are one slide, and pixels or a named failure for every one of them."""

import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsi_mivpg.errors import ResolutionError, SlideError
from wsi_mivpg.slides.readers.patch_folder import PatchFolder, find_patch_slides, read_patches


def patch(side_px: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path) -> dict[str, list[str]]:
    return {
        slide.slide_id: [str(path.relative_to(folder)) for path in slide.paths] for slide in find_patch_slides(folder)
    }


def test_patchgastric_names_give_one_slide_for_each_prefix(tmp_path):
    first, second = "f77a619f6ccc449f915b44bdc0d6d8f0", "143452aaf7604e33877c0c3261682e56"
    touch(tmp_path, f"{first}_0a3f9.jpg", f"{first}_12345.jpg", f"{second}_zzk2q.jpg", ".hidden.jpg", "captions.csv")
    assert found(tmp_path) == {second: [f"{second}_zzk2q.jpg"], first: [f"{first}_0a3f9.jpg", f"{first}_12345.jpg"]}


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.JPG", "c.jpeg"],
        ["tile_x1024_y20480.png", "tile_x1024_y30720.png", "tile_x2048_y20480.png"],
        ["patch_10240_20480.png", "patch_10240_20481.png", "patch_99999_20480.png"],
        ["case_00001.png", "case_00002.png"],
        ["s1_abcde.png", "s2_bcdef.png"],
        ["s1_abcde.png", "s1_bcdef.png", "other.png"],
        ["s1_abcd.png", "s1_bcde.png"],
    ],
)
def test_other_names_are_one_slide_named_as_the_folder(tmp_path, names):
    folder = touch(tmp_path / "case 7", *names)
    assert found(folder) == {"case 7": sorted(names)}


@given(
    st.lists(st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True), min_size=1, max_size=4, unique=True),
    st.lists(
        st.text(string.hexdigits[:16], min_size=4, max_size=8).map("f{}f".format), min_size=2, max_size=4, unique=True
    ),
)
def test_any_slides_with_hashes_are_told_apart(tmp_path_factory, slides, hashes):
    folder = touch(tmp_path_factory.mktemp("p"), *(f"{slide}_{code}.png" for slide in slides for code in hashes))
    assert found(folder) == {slide: sorted(f"{slide}_{code}.png" for code in hashes) for slide in sorted(slides)}


def test_each_subfolder_is_one_slide_with_all_below_it(tmp_path):
    touch(tmp_path, "b/2.png", "b/1.png", "a/0/x.jpg", "a/1/y.jpg", "notes/read.txt", ".cache/t.png")
    assert found(tmp_path) == {"a": ["a/0/x.jpg", "a/1/y.jpg"], "b": ["b/1.png", "b/2.png"]}


def test_unclear_folders_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(SlideError, match="no such folder"):
        find_patch_slides(tmp_path / "absent")
    with pytest.raises(SlideError, match="no patches"):
        find_patch_slides(tmp_path)
    touch(tmp_path / "both", "a.png", "sub/b.png")
    with pytest.raises(SlideError, match=r"both in it \(a\.png\) and in its subfolder sub"):
        find_patch_slides(tmp_path / "both")
    touch(tmp_path / "nested", "all/s1_abcde.png", "all/s1_bcdef.png", "all/s2_cdefg.png")
    with pytest.raises(SlideError, match="name this folder itself"):
        find_patch_slides(tmp_path / "nested")
    with pytest.raises(ResolutionError, match="outside"):
        find_patch_slides(tmp_path / "nested" / "all", mpp=100.0)


def test_there_are_no_coordinates_and_the_user_s_resolution_is_kept(tmp_path):
    (slide,) = find_patch_slides(touch(tmp_path, "a.png"), mpp=0.5)
    assert slide.has_coordinates is False
    assert slide.mpp == 0.5
    assert find_patch_slides(tmp_path)[0].mpp is None


def test_patches_come_in_order_exact_and_in_batches(tmp_path):
    for i in range(11):
        Image.fromarray(patch(seed=i)).save(tmp_path / f"{i:02d}.png")
    (slide,) = find_patch_slides(tmp_path)
    batches = list(read_patches(slide, 64, batch_size=4, threads=2))
    assert [(batch.start, len(batch), batch.failures) for batch in batches] == [(0, 4, {}), (4, 4, {}), (8, 3, {})]
    assert np.array_equal(np.concatenate([batch.pixels for batch in batches]), [patch(seed=i) for i in range(11)])


def test_larger_patches_are_means_of_areas(tmp_path):
    Image.fromarray(patch(96)).save(tmp_path / "a.png")
    (batch,) = read_patches(find_patch_slides(tmp_path)[0], 32)
    expected = patch(96).reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
    assert batch.failures == {}
    assert np.abs(batch.pixels[0] - expected).max() <= 0.5 + 1e-3


def test_what_cannot_be_used_is_white_and_named_and_the_rest_is_read(tmp_path):
    def save(name: str, pixels: np.ndarray) -> bytes:
        Image.fromarray(pixels).save(tmp_path / name)
        return (tmp_path / name).read_bytes()

    good = save("0 good.png", patch())
    (tmp_path / "1 truncated.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "2 empty.jpg").touch()
    save("3 small.png", patch(63))
    save("4 oblong.png", patch(100)[:80])
    save("5 deep.png", patch()[..., 0].astype(np.uint16))
    save("6 good.png", patch(seed=1))
    (batch,) = read_patches(find_patch_slides(tmp_path)[0], 64)
    said = {
        1: "cannot be read",
        2: "cannot be read",
        3: "63x63 px is smaller than the 64 px",
        4: "not square",
        5: "16 bits",
    }
    assert batch.failures.keys() == said.keys()
    for index, words in said.items():
        assert words in batch.failures[index]
        assert f"{index} " in Path(batch.failures[index].split(".")[0]).name
        assert (batch.pixels[index] == 255).all()
    assert np.array_equal(batch.pixels[[0, 6]], [patch(), patch(seed=1)])


def test_a_patch_that_vanished_is_a_failure_too(tmp_path):
    (batch,) = read_patches(PatchFolder("s", (tmp_path / "gone.png",), None), 32)
    assert "gone.png" in batch.failures[0]


def test_real_patches_of_two_patients_are_two_slides(shared_data):
    slides = find_patch_slides(shared_data / "tiles" / "idc_breast")
    assert [slide.slide_id for slide in slides] == ["14082", "14306"]
    batch = next(read_patches(slides[0], 50, batch_size=8))
    assert batch.pixels.shape == (8, 50, 50, 3)
    assert batch.failures == {}
