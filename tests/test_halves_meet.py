"""What the pixel half finds on a virtual slide is what the language half's cohort drew there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon2mask

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tissue import TissueMask, find_tissue


def _drawn(path: Path, found: TissueMask) -> np.ndarray:
    """The truth's tissue, bool[H, W], at the resolution of the mask that was found."""
    truth: dict[str, Any] = json.loads(path.with_suffix(".truth.json").read_text())
    scale = np.array([1 / found.downsample_y, 1 / found.downsample_x])
    drawn = np.zeros(found.mask.shape, bool)
    for region in truth["regions"]["features"]:
        outer = np.array(region["geometry"]["coordinates"][0])
        drawn |= polygon2mask(found.mask.shape, outer[:, ::-1] * scale)
    return drawn


def test_tissue_found_is_tissue_drawn(unseen_biopsies: list[Case]) -> None:
    overlaps = []
    for case in unseen_biopsies:
        with open_slide(case.slide_paths[0]) as slide:
            found = find_tissue(slide)
        drawn = _drawn(case.slide_paths[0], found)
        overlaps.append((found.mask & drawn).sum() / (found.mask | drawn).sum())
    assert min(overlaps) > 0.8, overlaps
    assert np.mean(overlaps) > 0.9, overlaps
