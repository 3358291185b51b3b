"""Virtual biopsies: the truth is what the map shows, the slide is a real pyramid, and reports say the truth."""

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import measure

from wsi_mivpg.cohorts.case import read_manifest
from wsi_mivpg.cohorts.label_map import MAP_CELL_PX, LabelMap, draw_label_map, measure_truth
from wsi_mivpg.cohorts.tile_folder import open_tile_folder
from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_cohort, paint
from wsi_mivpg.cohorts.wording import FINDING_PHRASES, rounded_extent, write_report
from wsi_mivpg.errors import CohortError

SMALL = VirtualCohort(name="small", test=2, seed=3, tissue_mm2=(0.1, 0.12))


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("virtual")
    compose_cohort(SMALL, out, splits=("test",), workers=1)
    return out


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.1, 0.9),
    foci=st.integers(1, 4),
    fragments=st.integers(1, 3),
    second=st.sampled_from([None, "lymphoid", "necrosis"]),
)
def test_truth_measured_on_any_map_adds_up(
    seed: int, share: float, foci: int, fragments: int, second: str | None
) -> None:
    plan = {
        "main": "glandular_tumour",
        "share": share,
        "foci": foci,
        "bases": ["parenchyma", "stroma"],
        "base_split": 0.6,
        "second": second,
        "second_touches": bool(seed % 2),
        "tissue_cells": 12_000.0,
        "fragments": fragments,
    }
    label_map = draw_label_map(plan, np.random.default_rng(seed))
    truth = measure_truth(label_map, 0.25)
    assert sum(truth.shares.values()) == pytest.approx(1, abs=1e-3)
    assert truth.extent_percent == pytest.approx(100 * share, abs=4)
    main = label_map.of("glandular_tumour")
    assert truth.n_foci == measure.label(main, connectivity=1).max()
    assert set(truth.touches) <= set(truth.shares) - {"glandular_tumour"}
    # Glass surrounds every fragment, so no tissue is cut off by the slide's edge.
    border = np.concatenate([label_map.index[0], label_map.index[-1], label_map.index[:, 0], label_map.index[:, -1]])
    assert not border.any()


def test_regions_that_share_a_border_touch_and_others_do_not() -> None:
    index = np.zeros((60, 90), np.uint8)
    index[10:50, 10:30], index[10:50, 30:50], index[10:50, 60:80] = 1, 2, 3
    label_map = LabelMap(index, ("parenchyma", "glandular_tumour", "stroma"), "glandular_tumour")
    truth = measure_truth(label_map, 0.25)
    assert truth.touches == ("parenchyma",)
    assert truth.adjacent_pairs == (("parenchyma", "glandular_tumour"),)
    assert truth.shares == {"parenchyma": 0.3333, "glandular_tumour": 0.3333, "stroma": 0.3333}
    outline = np.array(truth.regions["features"][1]["geometry"]["coordinates"][0])
    assert outline.min(axis=0) == pytest.approx([30 * MAP_CELL_PX, 10 * MAP_CELL_PX], abs=MAP_CELL_PX / 2)
    assert outline.max(axis=0) == pytest.approx([50 * MAP_CELL_PX, 50 * MAP_CELL_PX], abs=MAP_CELL_PX / 2)


def test_pixels_come_from_the_texture_of_their_label() -> None:
    index = np.array([[0, 1], [2, 2]], np.uint8).repeat(4, 0).repeat(4, 1)
    label_map = LabelMap(index, ("stroma", "lymphoid"), "lymphoid")
    textures = {"stroma": np.full((32, 32, 3), 100, np.uint8), "lymphoid": np.full((48, 48, 3), 50, np.uint8)}
    pixels = paint(label_map, textures, 240, np.random.default_rng(0))
    fine = index.repeat(MAP_CELL_PX, 0).repeat(MAP_CELL_PX, 1)
    assert (pixels[fine == 1] == 100).all()
    assert (pixels[fine == 2] == 50).all()
    assert pixels[fine == 0].mean() == pytest.approx(240, abs=1.5)


def test_a_slide_is_a_pyramid_with_its_resolution_and_its_truth_beside_it(composed: Path) -> None:
    path = composed / "slides" / "small-test-0001.tiff"
    with openslide.OpenSlide(path) as slide:
        assert slide.level_downsamples == pytest.approx((1, 4, 16), rel=1e-3)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
    truth = json.loads(path.with_suffix(".truth.json").read_text())
    assert truth["finding"] in FINDING_PHRASES
    assert len(truth["reports"]) == SMALL.paraphrases


def test_the_same_seed_gives_the_same_bytes(composed: Path, tmp_path: Path) -> None:
    compose_cohort(SMALL, tmp_path, splits=("test",), workers=1)
    for path in sorted((composed / "slides").iterdir()):
        assert path.read_bytes() == (tmp_path / "slides" / path.name).read_bytes()


def test_the_manifest_reads_back(composed: Path) -> None:
    cases = read_manifest(composed / "small.jsonl")
    assert [case.case_id for case in cases] == ["small-test-0000", "small-test-0001"]
    assert all(path.is_file() for case in cases for path in case.slide_paths)
    assert {case.split for case in cases} == {"test"}


def test_splits_have_their_own_slides(tmp_path: Path) -> None:
    both = SMALL.model_copy(update={"train": 1, "test": 1})
    train, test = compose_cohort(both, tmp_path, splits=("train", "test"), workers=1)
    assert train.slide_paths[0].read_bytes() != test.slide_paths[0].read_bytes()


def test_every_wording_states_finding_extent_and_foci() -> None:
    truth = {
        "organ": "Lung",
        "procedure": "core biopsy",
        "finding": "squamous_cell_carcinoma",
        "extent_percent": 37.4,
        "n_foci": 2,
        "touches": ["stroma", "parenchyma"],
        "shares": {},
    }
    rng = np.random.default_rng(0)
    texts = {write_report(truth, rng) for _ in range(200)}
    assert len(texts) > 30
    for text in texts:
        assert any(phrase in text for phrase in FINDING_PHRASES["squamous_cell_carcinoma"])
        assert "35%" in text
        assert "2 foci" in text or "2 separate foci" in text
        assert "fibrous stroma and normal lung" in text


@pytest.mark.parametrize(("exact", "said"), [(0.2, 5), (12.4, 10), (12.6, 15), (99, 100)])
def test_extents_are_said_in_steps_of_five(exact: float, said: int) -> None:
    assert rounded_extent(exact) == said


def _real_tiles(folder: Path) -> None:
    for split, shade in (("train", 60), ("test", 160)):
        for name in ("tumour", "normal"):
            (folder / split / name).mkdir(parents=True)
            colour = (shade, shade // 2, shade) if name == "tumour" else (shade, shade, shade // 2)
            Image.new("RGB", (32, 32), colour).save(folder / split / name / "a.png")


def test_tiles_of_another_split_are_never_used(tmp_path: Path) -> None:
    _real_tiles(tmp_path)
    classes = {"tumour": "glandular_tumour", "normal": "parenchyma"}
    tiles = open_tile_folder(str(tmp_path), "test", classes)
    rng = np.random.default_rng(0)
    texture = tiles.texture("glandular_tumour", 2, 2.0, np.ones(3), rng)
    assert texture.shape == (128, 128, 3)
    assert (texture == (160, 80, 160)).all()


def test_a_missing_class_names_source_label_and_split(tmp_path: Path) -> None:
    _real_tiles(tmp_path)
    with pytest.raises(CohortError, match="no tile of 'stroma' in split 'train'"):
        open_tile_folder(str(tmp_path), "train", {"fibrous": "stroma"})
    with pytest.raises(CohortError, match="does not exist"):
        open_tile_folder(str(tmp_path / "nowhere"), "train", {})
