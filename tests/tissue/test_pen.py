"""Painted marker over and beside rendered tissue: the ink goes, the tissue stays."""

import numpy as np
import pytest

from tests.tissue.drawing import INKS, MPP, densities, ellipse, overlap, picture, stain, stroke
from wsi_mivpg.tissue.stain import tissue_of

SHAPE = (400, 500)
MARKERS = [name for name in INKS if name != "purplish black"]


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("blur_px", [0.5, 3.0, 8.0])
def test_a_slide_with_ink_only_is_empty(ink, blur_px):
    density = densities(SHAPE)
    stroke(density, [(50, 100), (400, 120), (200, 300)], 40, ink, blur_px)
    assert tissue_of(picture(density), MPP).mean() <= 0.02


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("kind", ["H&E", "pale H&E", "eosin only", "lymphoid", "DAB", "blue IHC"])
def test_ink_over_and_beside_tissue_goes_and_the_tissue_stays(ink, kind):
    tissue = ellipse(SHAPE, (200, 200), (120, 130))
    density = densities(SHAPE)
    stain(density, tissue, kind)
    # One stroke crosses the tissue's edge, one lies beside it, out of focus.
    inked = stroke(density, [(300, 50), (300, 350)], 24, ink)
    inked |= stroke(density, [(400, 50), (480, 300)], 24, ink, blur_px=4.0)
    found = tissue_of(picture(density), MPP)
    truth = tissue & ~inked
    assert overlap(found, truth) >= 0.95
    assert found[truth].mean() >= 0.95
    assert found[inked].mean() <= 0.10


@pytest.mark.parametrize("ink", MARKERS)
def test_glass_inside_a_ring_of_ink_is_not_tissue(ink):
    density = densities(SHAPE)
    angles = np.linspace(0, 2 * np.pi, 60)
    stroke(density, [(round(250 + 60 * np.cos(a)), round(200 + 60 * np.sin(a))) for a in angles], 16, ink)
    assert tissue_of(picture(density), MPP).mean() <= 0.002


@pytest.mark.parametrize("ink", ["red", "green", "blue", "black"])
def test_tissue_inside_a_ring_of_ink_is_kept(ink):
    tissue = ellipse(SHAPE, (250, 200), (40, 30))
    density = densities(SHAPE)
    stain(density, tissue, "H&E")
    angles = np.linspace(0, 2 * np.pi, 60)
    stroke(density, [(round(250 + 75 * np.cos(a)), round(200 + 75 * np.sin(a))) for a in angles], 16, ink)
    assert overlap(tissue_of(picture(density), MPP), tissue) >= 0.95
