from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.widgets.cases import SENTENCES
from wsi_mivpg.errors import EvidenceError, SlideError, ViewError
from wsi_mivpg.evidence import read_evidence, write_evidence
from wsi_mivpg.reports import read_jsonl
from wsi_mivpg.reports.report import NOT_ASSESSABLE
from wsi_mivpg.widgets import Tiles
from wsi_mivpg.widgets.gather import gathered
from wsi_mivpg.widgets.scene import Scene, supporting


@pytest.fixture(scope="module")
def scene(case_folder: Path) -> Scene:
    return gathered(report=read_jsonl(case_folder / "reports.jsonl")[0], folder=case_folder)


def slides_of(folder: Path) -> list[Path]:
    return sorted((folder / "slides").glob("*.tiff"), reverse=True)


def grid(count: int) -> Tiles:
    return Tiles(np.stack([np.arange(count) * 224, np.zeros(count, np.int64)], axis=1), 224.0, (224 * count, 224))


def test_a_report_brings_its_slides_sentences_tiles_and_maps(scene: Scene):
    said = scene.describe()
    assert [slide["has_pixels"] for slide in said["slides"]] == [True, True]
    assert [row["text"] for row in said["rows"]] == [*SENTENCES, "Whole report"]
    assert (said["methods"], said["first"]) == (["attention", "gradient"], {"method": "attention", "row": 3})
    assert not said["top_tiles_only"]
    coords = np.frombuffer(scene.answer("coords")[1], "<i4").reshape(-1, 2)
    assert coords.tolist() == scene.coords.tolist()
    weights = np.frombuffer(scene.answer("weights/gradient/0")[1], "<f4")
    assert weights.tolist() == scene.maps["attention"][3].tolist()


def test_cells_name_the_tiles_of_the_case_and_not_of_the_slide(scene: Scene):
    for number, slide in enumerate(scene.describe()["slides"]):
        cells = np.frombuffer(scene.answer(f"cells/{number}")[1], "<i4")
        assert cells.size == np.prod(slide["cells"]["shape"])
        first = slide["first_tile"]
        assert sorted(cells[cells >= 0]) == list(range(first, first + slide["n_tiles"]))


def test_a_sentence_whose_map_is_no_better_than_random_says_so(scene: Scene):
    assert ["random" in row.remarks.get("attention", "") for row in scene.rows] == [False, False, True, False]


def curves_of(lost: float) -> dict[str, np.ndarray]:
    """Curves of a map that loses so much more than random orders do, and gains as much."""
    order, random = np.zeros(2), np.linspace(-0.1, 0.1, 8)[:, None].repeat(2, axis=1)
    names = ("feature_norm_deletion", "feature_norm_insertion", "uniform_deletion", "uniform_insertion")
    return {
        "fractions": np.array([0.3, 0.7]),
        "whole": np.array(0.0),
        "deletion": order - lost,
        "insertion": order + lost,
        "random_deletion": random,
        "random_insertion": random,
    } | dict.fromkeys(names, order)


def test_each_method_says_of_its_own_map_whether_it_is_no_better_than_random(case_folder: Path, tmp_path: Path):
    found = read_evidence(case_folder / "evidence" / "case.h5")
    curves = {
        "gradient": [curves_of(lost) for lost in (0, 9, 9, 0)],
        "attention": [curves_of(lost) for lost in (9, 0, 9, 9)],
    }
    write_evidence(tmp_path / "case.h5", replace(found, curves=curves))
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    for own in (report, None):  # with what the report says, and from the file alone
        rows = gathered(report=own, evidence=tmp_path / "case.h5").rows
        doubted = {method: ["random" in row.remarks[method] for row in rows] for method in curves}
        assert doubted == {"gradient": [True, False, False, True], "attention": [False, True, False, False]}


def test_a_sentence_that_is_not_assessable_is_not_shown(case_folder: Path):
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    first, second, third = report.sentences
    held_back = second.model_copy(update={"assessable": False})
    report = report.model_copy(update={"sentences": (first, held_back, third)})
    said = gathered(report=report, folder=case_folder).describe()
    shown = [SENTENCES[0], NOT_ASSESSABLE, SENTENCES[2]]
    assert [row["text"] for row in said["rows"]] == [*shown, "Whole report"]
    assert said["text"] == " ".join(shown)


def test_a_tile_supports_the_sentences_in_whose_highest_tenth_it_is(scene: Scene):
    maps = scene.maps["attention"]
    packed = np.frombuffer(scene.answer("support/attention")[1], np.uint8).reshape(len(maps), -1)
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : maps.shape[1]]
    count = round(maps.shape[1] * 0.1)
    for row, weights in zip(bits, maps, strict=True):
        assert set(np.flatnonzero(row)) == set(np.argsort(-weights)[:count])


def test_what_speaks_against_a_sentence_is_no_support():
    assert supporting(np.array([[-3.0, -2.0, -1.0]], np.float32)).sum() == 0


def test_without_its_evidence_a_report_shows_its_top_tiles_and_says_so(case_folder: Path):
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    scene = gathered(report=report.model_copy(update={"evidence": "gone.h5"}), folder=case_folder)
    assert scene.top_tiles_only
    assert any("Only the top tiles" in remark for remark in scene.remarks)
    for row, sentence in enumerate(report.sentences):
        shown = {
            (scene.slides[scene.slide_of[tile]].slide_id, *scene.coords[tile])
            for tile in np.flatnonzero(scene.maps["attention"][row])
        }
        assert shown == {(tile.slide_id, tile.x, tile.y) for tile in sentence.top_tiles}


def test_a_slide_that_is_gone_leaves_its_tiles_and_a_remark(case_folder: Path):
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    slides = tuple(slide.model_copy(update={"path": "/nowhere/slide.tiff"}) for slide in report.slides)
    scene = gathered(report=report.model_copy(update={"slides": slides}), folder=case_folder)
    said = scene.describe()["slides"]
    assert [slide["has_pixels"] for slide in said] == [False, False]
    assert all("no such file" in slide["remark"] and slide["n_tiles"] > 0 for slide in said)


def test_evidence_alone_brings_its_sentences_and_slides_of_another_name_take_its_own_in_order(
    case_folder: Path, tmp_path: Path
):
    renamed = tmp_path / "another-name.tiff"
    renamed.symlink_to(slides_of(case_folder)[0])
    scene = gathered([renamed, slides_of(case_folder)[1]], evidence=case_folder / "evidence" / "case.h5")
    assert [row.text for row in scene.rows] == [*SENTENCES, "Whole report"]
    assert [slide.slide_id for slide in scene.slides] == [path.stem for path in slides_of(case_folder)]


def test_tiles_and_weights_of_ones_own_need_no_report(case_folder: Path):
    slides = slides_of(case_folder)
    scene = gathered(slides, tiles=[grid(3), grid(4)], weights=np.arange(7))
    assert scene.describe()["first"] == {"method": "attention", "row": 0}
    assert scene.first_tile == [0, 3]
    scene = gathered(tiles=grid(3), weights={"own": np.eye(3)}, labels=["a", "b", "c"])
    assert ([row.text for row in scene.rows], list(scene.maps)) == (["a", "b", "c"], ["own"])
    assert scene.slides[0].size_px == (672, 224)


def test_mistakes_are_errors_that_say_what_does_not_fit(case_folder: Path, tmp_path: Path):
    slides = slides_of(case_folder)
    report = read_jsonl(case_folder / "reports.jsonl")[0]
    with pytest.raises(ViewError, match="nothing to show"):
        gathered()
    with pytest.raises(SlideError, match=r"gone\.tiff: no such file"):
        gathered("gone.tiff")
    with pytest.raises(ViewError, match="2 slides but tiles of 1"):
        gathered(slides, tiles=grid(3))
    with pytest.raises(ViewError, match=r"weights of shape \(1, 5\), but the slides have 3 tiles"):
        gathered(slides[0], tiles=grid(3), weights=np.ones(5))
    with pytest.raises(ViewError, match="must be finite, and 1 are not"):
        gathered(slides[0], tiles=grid(3), weights=[1, np.nan, 2])
    with pytest.raises(ViewError, match="3 sentences, and the weights have 2 rows"):
        gathered(slides[0], report=report, tiles=grid(3), weights=np.ones((2, 3)))
    other = tmp_path / "other.tiff"
    other.symlink_to(slides[0])
    with pytest.raises(ViewError, match=r"evidence over slides .* but 1 slides"):
        gathered(other, evidence=case_folder / "evidence" / "case.h5")
    with pytest.raises(EvidenceError, match=r"gone\.h5"):
        gathered(slides[0], evidence="gone.h5")


NOTHING = """tile/0/0/0 tile/9/0/0/0 tile/-1/0/0/0 tile/0/99/0/0 weights/attention/99 weights/attention/-1
weights/x/0 support/x cells/7 cells/٣ cells/1e0 coords/0 .."""


@pytest.mark.parametrize("path", ["", *NOTHING.split()])
def test_what_the_viewer_has_not_is_refused(scene: Scene, path: str):
    with pytest.raises(LookupError):
        scene.answer(path)
