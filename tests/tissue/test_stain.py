"""The default method on generated images with known truth: stains are kept, glass and artefacts are not."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.tissue.drawing import GLASS, MPP, densities, ellipse, overlap, picture, stain
from wsi_mivpg.tissue.stain import saturated_tissue_of, tissue_of

SHAPE = (400, 500)


@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 242, 244), (238, 232, 228)])
def test_a_blank_slide_is_empty(glass):
    noise = np.random.default_rng(0).normal(0, 4, size=(300, 400, 3))
    pixels = np.clip(np.array(glass) + noise, 0, 255).astype(np.uint8)
    assert not tissue_of(pixels, 8.0).any()


def test_pale_tissue_beside_dark_tissue_is_kept():
    pixels = np.full((300, 400, 3), 245, dtype=np.uint8)
    pixels[50:150, 50:150] = (120, 50, 130)
    pixels[50:150, 220:320] = (232, 205, 222)
    mask = tissue_of(pixels, 8.0)
    assert mask[60:140, 60:140].all()
    assert mask[60:140, 230:310].all()
    assert not mask[200:].any()


def test_a_field_full_of_tissue_is_all_tissue():
    noise = np.random.default_rng(0).normal(0, 8, size=(300, 400, 1))
    pixels = np.clip(np.array((205, 140, 185)) + noise, 0, 255).astype(np.uint8)
    assert tissue_of(pixels, 8.0).mean() > 0.99


def test_lumens_are_filled_and_specks_dropped():
    pixels = np.full((300, 300, 3), 245, dtype=np.uint8)
    pixels[50:250, 50:250] = (190, 110, 160)
    pixels[130:150, 130:150] = 245
    pixels[10:14, 10:14] = (190, 110, 160)
    mask = tissue_of(pixels, 8.0)
    assert mask[130:150, 130:150].all()
    assert not mask[5:20, 5:20].any()


def test_glass_in_a_corner_is_not_a_hole():
    pixels = np.full((100, 100, 3), (190, 110, 160), dtype=np.uint8)
    pixels[:30, 70:] = 245
    mask = tissue_of(pixels, 8.0)
    assert not mask[:20, 80:].any()
    assert mask[40:].all()


@pytest.mark.parametrize("kind", ["H&E", "pale H&E", "eosin only", "lymphoid", "DAB", "blue IHC"])
def test_every_stain_is_kept_to_its_edge(kind):
    truth = ellipse(SHAPE, (150, 200), (110, 150)) | ellipse(SHAPE, (380, 120), (60, 40))
    density = densities(SHAPE)
    stain(density, truth, kind)
    assert overlap(tissue_of(picture(density), MPP), truth) > 0.95


@pytest.mark.parametrize("nearly_black", [(0.27, 0.57, 0.78), (0.91, 0.99, 1.04)])
@pytest.mark.parametrize("amount", [0.6, 1.2])
def test_saturated_dab_is_not_taken_for_black_ink(nearly_black, amount):
    truth = ellipse(SHAPE, (250, 200), (150, 120))
    density = densities(SHAPE)
    cells = np.random.default_rng(0).gamma(3, amount / 3, size=(*SHAPE, 1))
    density[truth] += (np.array(nearly_black) * cells)[truth]
    assert overlap(tissue_of(picture(density), MPP), truth) > 0.95


def test_a_violet_scan_is_not_taken_for_blue_ink():
    truth = ellipse(SHAPE, (250, 200), (150, 120))
    density = densities(SHAPE)
    density[truth] = -np.log10(np.array((110, 85, 240)) / GLASS)
    assert overlap(tissue_of(picture(density), MPP), truth) > 0.95


def test_red_cells_in_tissue_are_kept():
    truth = ellipse(SHAPE, (250, 200), (150, 120))
    density = densities(SHAPE)
    stain(density, truth, "H&E")
    lake = ellipse(SHAPE, (250, 200), (30, 20))
    density[lake] = -np.log10(np.array((193, 72, 103)) / GLASS)
    assert tissue_of(picture(density), MPP)[truth].mean() > 0.99


def test_fat_is_kept_though_no_pixel_shows_its_membranes():
    # Membranes of 2 um around lumens of 64 um, drawn at 1 um per pixel and seen at 8.
    fine = np.full((1600, 1600, 3), GLASS)
    for start in range(0, 1600, 64):
        fine[start : start + 3, 400:1200] = fine[400:1200, start : start + 3] = (215, 150, 190)
    fine[:400] = fine[1200:] = GLASS
    fine = np.where((np.arange(1600)[None, :, None] < 400) | (np.arange(1600)[None, :, None] >= 1200), GLASS, fine)
    seen = fine.reshape(200, 8, 200, 8, 3).mean(axis=(1, 3))
    mask = tissue_of(np.clip(seen + np.random.default_rng(0).normal(0, 1, seen.shape), 0, 255).astype(np.uint8), MPP)
    assert mask[60:140, 60:140].all()
    assert not mask[:, :35].any()
    assert not mask[:35].any()


def test_grey_tissue_that_the_counterstain_hardly_colours_is_kept():
    truth = ellipse(SHAPE, (250, 200), (150, 120))
    density = densities(SHAPE)
    density[truth] += np.random.default_rng(0).gamma(3, 0.05 / 3, size=(*SHAPE, 1))[truth]
    mask = tissue_of(picture(density), MPP)
    assert mask[ellipse(SHAPE, (250, 200), (130, 100))].all()
    assert not mask[~ellipse(SHAPE, (250, 200), (165, 135))].any()


@pytest.mark.parametrize("grey_od", [0.03, 0.08, 0.3])
def test_a_smooth_shadow_is_not_tissue(grey_od):
    density = densities(SHAPE)
    density[50:300, 60:350] += grey_od
    assert not tissue_of(picture(density), MPP).any()


@pytest.mark.parametrize("rgb", [(40, 40, 40), (90, 90, 90), (120, 90, 60), (150, 150, 155)])
@pytest.mark.parametrize("width_px", [1, 2, 4])
def test_hairs_and_edges_of_coverslips_are_not_tissue(rgb, width_px):
    image = Image.new("L", SHAPE[::-1])
    ImageDraw.Draw(image).line([(10, 30), (300, 200), (480, 370)], fill=255, width=width_px)
    density = densities(SHAPE) + (np.asarray(image) / 255)[..., None] * -np.log10(np.array(rgb) / GLASS)
    assert tissue_of(picture(density), MPP).mean() < 0.002


def test_dust_is_not_tissue():
    density = densities(SHAPE)
    random = np.random.default_rng(0)
    for x, y in random.integers(10, 390, size=(60, 2)):
        density[y : y + random.integers(1, 6), x : x + random.integers(1, 6)] += random.uniform(0.2, 1.5)
    assert not tissue_of(picture(density), MPP).any()


@pytest.mark.parametrize("width_px", [1, 4, 40])
def test_black_borders_are_not_tissue_and_tissue_beside_them_is_kept(width_px):
    truth = ellipse(SHAPE, (220, 200), (120, 110))
    density = densities(SHAPE)
    stain(density, truth, "H&E")
    pixels = picture(density)
    pixels[:width_px] = 3
    pixels[:, -width_px:] = 0
    mask = tissue_of(pixels, MPP)
    assert overlap(mask, truth) > 0.95
    assert not mask[:, -width_px:].any()


@pytest.mark.parametrize("mpp", [0.5, 2.0, 4.0])
def test_a_fine_image_gives_the_mask_of_a_coarse_one(mpp):
    side_px = round(200 * 8 / mpp)
    pixels = np.full((side_px, side_px, 3), 245, dtype=np.uint8)
    quarter = side_px // 4
    pixels[quarter : 3 * quarter, quarter : 3 * quarter] = (190, 110, 160)
    truth = np.zeros((side_px, side_px), dtype=bool)
    truth[quarter : 3 * quarter, quarter : 3 * quarter] = True
    found = tissue_of(pixels, mpp)
    assert found.shape == truth.shape
    assert overlap(found, truth) > 0.97


@pytest.mark.parametrize("find", [tissue_of, saturated_tissue_of])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (60, 2)])
def test_tiny_and_narrow_images_have_a_mask(find, shape):
    assert find(np.full((*shape, 3), 245, dtype=np.uint8), 8.0).shape == shape


def test_saturation_finds_stain_and_leaves_glass():
    truth = ellipse(SHAPE, (250, 200), (150, 120))
    density = densities(SHAPE)
    stain(density, truth, "H&E")
    assert overlap(saturated_tissue_of(picture(density), MPP), truth) > 0.95
