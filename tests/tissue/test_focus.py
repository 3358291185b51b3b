"""Focus: blurred tissue is dropped, sharp, pale and featureless tissue is kept, and no slide becomes slow by it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from tests.tissue.drawing import EOSIN, GLASS, HAEMATOXYLIN
from wsi_mivpg.slides import Slide, open_slide
from wsi_mivpg.tissue import find_tissue, focus, qc_image

SIDE_PX = 2048
LEFT, RIGHT = np.s_[200:-200, 200:824], np.s_[200:-200, 1224:-200]


def write_slide(path: Path, pixels: np.ndarray, mpp: float, downsamples: tuple[int, ...]) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for downsample in downsamples:
            size_px = (pixels.shape[1] // downsample, pixels.shape[0] // downsample)
            level = cv2.resize(pixels, size_px, interpolation=cv2.INTER_AREA)
            tags = {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": "CENTIMETER"}
            tiff.write(level, subfiletype=int(downsample > 1), tile=(256, 256), compression="jpeg", **tags)
    return path


def cells(ground: float, nuclei_per_mm2: int, seed: int = 0) -> np.ndarray:
    """Return uint8[2048, 2048, 3], 1 um per pixel: nuclei of 3 to 5 um radius on an eosin ground, glass around."""
    random = np.random.default_rng(seed)
    nuclei = np.zeros((SIDE_PX, SIDE_PX), dtype=np.float32)
    for x, y, radius in random.uniform((0, 0, 3), (SIDE_PX, SIDE_PX, 5), size=(round(nuclei_per_mm2 * 4.2), 3)):
        cv2.circle(nuclei, (round(x), round(y)), round(radius), float(random.uniform(0.3, 0.8)), -1, cv2.LINE_AA)
    fibres = cv2.GaussianBlur(random.normal(0, 1, nuclei.shape).astype(np.float32), (0, 0), 2.0)
    density = EOSIN * (ground * (1 + fibres))[..., None] + HAEMATOXYLIN * nuclei[..., None]
    outside = np.ones(nuclei.shape, dtype=bool)
    outside[100:-100, 100:-100] = False
    density[outside] = 0
    return GLASS * 10**-density


def seen(light: np.ndarray) -> np.ndarray:
    return np.clip(light + np.random.default_rng(1).normal(0, 1, size=light.shape), 0, 255).astype(np.uint8)


def defocused(light: np.ndarray, radius_um: int) -> np.ndarray:
    y, x = np.mgrid[-radius_um : radius_um + 1, -radius_um : radius_um + 1]
    disk = (x * x + y * y <= radius_um**2).astype(np.float64)
    return cv2.filter2D(light, -1, disk / disk.sum())


def half_defocused(light: np.ndarray, radius_um: int) -> np.ndarray:
    mixed = light.copy()
    mixed[:, : SIDE_PX // 2] = defocused(light, radius_um)[:, : SIDE_PX // 2]
    return seen(mixed)


def enlarged(mask: np.ndarray) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_NEAREST) > 0


@pytest.mark.parametrize("radius_um", [8, 12])
@pytest.mark.parametrize(("ground", "nuclei"), [(0.25, 2500), (0.1, 1000), (0.2, 8000)])
def test_the_blurred_half_of_a_slide_is_dropped_and_the_sharp_half_is_kept(tmp_path, ground, nuclei, radius_um):
    pixels = half_defocused(cells(ground, nuclei), radius_um)
    with open_slide(write_slide(tmp_path / "slide.tiff", pixels, 1.0, (1, 8))) as slide:
        tissue = find_tissue(slide)
    assert enlarged(tissue.mask)[LEFT].mean() <= 0.05
    assert enlarged(tissue.blurred)[LEFT].mean() >= 0.95
    assert enlarged(tissue.mask)[RIGHT].all()
    assert not (tissue.mask & tissue.blurred).any()


@pytest.mark.parametrize(("ground", "nuclei"), [(0.25, 2500), (0.1, 300), (0.45, 0), (0.2, 8000)])
def test_sharp_tissue_is_kept_with_many_nuclei_few_or_none(tmp_path, ground, nuclei):
    with open_slide(write_slide(tmp_path / "slide.tiff", seen(cells(ground, nuclei)), 1.0, (1, 8))) as slide:
        tissue = find_tissue(slide)
    assert not tissue.blurred.any()
    assert enlarged(tissue.mask)[104:-104, 104:-104].mean() > 0.99


def test_featureless_tissue_such_as_mucin_is_kept(tmp_path):
    light = np.full((SIDE_PX, SIDE_PX, 3), GLASS)
    light[100:-100, 100:-100] = GLASS * 10 ** -(EOSIN * 0.2)
    light[900:1100, 100:-100] = cells(0.2, 2500)[900:1100, 100:-100]
    with open_slide(write_slide(tmp_path / "slide.tiff", seen(light), 1.0, (1, 8))) as slide:
        assert not find_tissue(slide).blurred.any()


def test_only_the_method_by_colour_judges_focus(tmp_path):
    pixels = half_defocused(cells(0.25, 2500), 10)
    with open_slide(write_slide(tmp_path / "slide.tiff", pixels, 1.0, (1, 8))) as slide:
        for method in ("hsv", "none"):
            tissue = find_tissue(slide, method)
            assert tissue.blurred is None
            assert enlarged(tissue.mask)[LEFT].all()


def test_a_slide_without_fine_pixels_is_not_judged(tmp_path):
    pixels = half_defocused(cells(0.25, 2500), 10)
    with open_slide(write_slide(tmp_path / "slide.tiff", pixels, 1.0, (4, 8)), mpp=4.0) as slide:
        tissue = find_tissue(slide)
    assert not tissue.blurred.any()
    assert enlarged(tissue.mask)[LEFT].all()


@pytest.fixture
def pixels_read(monkeypatch):
    """Return a list that grows by the number of pixels of each fine read."""
    counted: list[int] = []
    read_level = Slide.read_level

    def counting(self, x0, y0, level, size_px, **options):
        if self.downsamples[level] < 8:
            counted.append(size_px[0] * size_px[1])
        return read_level(self, x0, y0, level, size_px, **options)

    monkeypatch.setattr(Slide, "read_level", counting)
    return counted


def test_of_large_tissue_only_a_part_is_read_and_still_the_blurred_half_is_dropped(tmp_path, monkeypatch, pixels_read):
    pixels = half_defocused(cells(0.25, 2500), 10)
    most = SIDE_PX**2 // 4
    monkeypatch.setattr(focus, "_MOST_PIXELS", most)
    with open_slide(write_slide(tmp_path / "slide.tiff", pixels, 1.0, (1, 8))) as slide:
        tissue = find_tissue(slide)
    assert 0 < sum(pixels_read) <= most
    assert enlarged(tissue.mask)[LEFT].mean() <= 0.5
    assert enlarged(tissue.mask)[RIGHT].all()


def test_glass_is_not_read(tmp_path, pixels_read):
    light = np.full((SIDE_PX, SIDE_PX, 3), GLASS)
    light[100:400, 100:400] = cells(0.25, 2500)[100:400, 100:400]
    with open_slide(write_slide(tmp_path / "slide.tiff", seen(light), 1.0, (1, 8))) as slide:
        find_tissue(slide)
    assert pixels_read == [512**2]


def test_tissue_under_a_damaged_tile_is_kept(tmp_path):
    path = write_slide(tmp_path / "slide.tiff", half_defocused(cells(0.25, 2500), 10), 1.0, (1, 8))
    with tifffile.TiffFile(path) as tiff:
        # The second tile of the fourth row: in the blurred half, apart from the tile that opening looks at.
        offset, count = (values[3 * 8 + 1] for values in (tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    with open_slide(path) as slide:
        tissue = find_tissue(slide)
    kept = enlarged(tissue.mask)
    assert kept[620:900, 100:400].mean() > 0.5
    assert not kept[1200:1700, 200:700].any()


@pytest.mark.parametrize(
    "name", ["metaplasia_HE.tiff", "lungscc_HE3.tiff", "CMU-1-Small-Region.svs", "dzi/trypsin.dzi"]
)
def test_nothing_of_a_sharp_real_slide_is_dropped(shared_data, name):
    with open_slide(shared_data / "slides" / name) as slide:
        assert not find_tissue(slide).blurred.any()


@pytest.mark.parametrize(("name", "x", "y"), [("metaplasia_HE.tiff", 200, 700), ("lungscc_HE3.tiff", 1900, 1400)])
@pytest.mark.parametrize("radius_um", [8, 10])
def test_an_area_of_a_real_slide_that_is_blurred_afterwards_is_dropped(shared_data, tmp_path, name, x, y, radius_um):
    with open_slide(shared_data / "slides" / name) as slide:
        # Both have a level of about 1 um per pixel.
        sharp = slide.read_level(x, y, 1, (SIDE_PX, SIDE_PX)).astype(np.float64)
    masks = []
    for pixels in (seen(sharp), half_defocused(sharp, radius_um)):
        with open_slide(write_slide(tmp_path / "slide.tiff", pixels, 1.0, (1, 8))) as slide:
            masks.append(find_tissue(slide))
    before, after = masks
    left, right = np.s_[:, :128], np.s_[:, 144:]
    assert after.blurred[left].sum() >= 0.9 * before.mask[left].sum() > 0.1 * before.mask[left].size
    assert not after.blurred[right].any()


def test_the_picture_shows_what_is_out_of_focus(tmp_path):
    pixels = half_defocused(cells(0.25, 2500), 10)
    with open_slide(write_slide(tmp_path / "slide.tiff", pixels, 1.0, (1, 8))) as slide:
        tissue, thumbnail = find_tissue(slide), slide.thumbnail(256)
    purple = (qc_image(thumbnail, tissue) == np.array((200, 0, 200))).all(axis=2)
    assert purple[20:-20, 10:16].any()
    assert not purple[:, 140:].any()
