"""`report` says what supports each sentence, and `explain` shows it in files, from the report's JSON alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import geojson
import numpy as np
import pytest
from PIL import Image

from tests.cli.colour_encoder import NAME
from tests.conftest import Rectangle, painted
from tests.tiny_captioner import MIVPG, tiny_config, write_tiny_language_model
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cli.case_files import json_path
from wsi_mivpg.cli.main import main
from wsi_mivpg.cohorts.case import Case, write_manifest
from wsi_mivpg.cohorts.virtual import write_pyramid
from wsi_mivpg.evidence import read_evidence
from wsi_mivpg.evidence.heatmap import colours, raw_scaled
from wsi_mivpg.reports import Report, read_json, write_json
from wsi_mivpg.reports.report import NOT_ASSESSABLE
from wsi_mivpg.slides import open_slide

Run = Callable[..., tuple[int, str, str]]
TISSUE = {"one": Rectangle(100, 130, 420, 350), "two": Rectangle(64, 64, 300, 200)}


def program(*arguments: object) -> int:
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    return int(leaving.value.code or 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_language_model(folder / "base")
    config = tiny_config(
        folder / "base",
        mivpg={**MIVPG, "input_dim": 3},
        encoder=NAME,
        encoder_weights_sha256="0" * 64,
        feature_dim=3,
        tile_px=64,
    )
    SlideCaptioner.create(config).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def reported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with slides/, and out/ as `report` wrote it of them; tests work on copies."""
    folder = tmp_path_factory.mktemp("reported")
    (folder / "slides").mkdir()
    for name, tissue in TISSUE.items():
        pixels = painted((701, 603), [tissue], seed=len(name))
        pixels[tissue.y : tissue.y + tissue.height, tissue.x : tissue.x + tissue.width, 0] ^= 31
        write_pyramid(folder / "slides" / f"{name}.tiff", pixels, 0.5)
    assert program("report", folder / "slides", "--model", model, "--out", folder / "out", "--tissue", "hsv") == 0
    return folder


@pytest.fixture
def out(reported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reported / "out", tmp_path / "out"))


@pytest.fixture(scope="module")
def explained(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the pages after `explain --method all` of one case."""
    copy = Path(shutil.copytree(reported / "out", tmp_path_factory.mktemp("explained") / "out"))
    assert program("explain", copy / "one.json", "--method", "all", "--tissue", "hsv") == 0
    return copy


def test_a_report_holds_its_sentences_with_tiles_and_figures(reported: Path):
    for name in TISSUE:
        report = read_json(reported / "out" / f"{name}.json")
        assert report.text
        assert report.token_ids
        assert report.sentences
        assert all(report.text[one.start : one.end] == one.text for one in report.sentences)
        for sentence in report.sentences:
            assert sentence.method == "gradient"
            assert sentence.faithfulness is not None
        (slide,) = report.slides
        assert slide.path == str(reported / "slides" / f"{name}.tiff")
        assert slide.bag == f"bags/{name}.h5"
        evidence = read_evidence(reported / "out" / str(report.evidence))
        assert evidence.texts() == [*(one.text for one in report.sentences), report.text]
        for row, one in enumerate([*report.sentences, report]):
            weights = evidence.weights["gradient"][row]
            best = [row for row in np.argsort(-weights, kind="stable")[:6] if weights[row] > 0]
            expected = [(*evidence.coords[tile], pytest.approx(weights[tile])) for tile in best]
            assert [(tile.x, tile.y, tile.weight) for tile in one.top_tiles] == expected


def test_the_log_probabilities_of_sentences_make_up_the_reports(reported: Path):
    report = read_json(reported / "out" / "one.json")
    assert report.mean_logprob is not None
    total = report.mean_logprob * len(report.token_ids)
    of_sentences = sum(sentence.logprob for sentence in report.sentences)
    assert total <= of_sentences + 1e-4  # the end token is of no sentence
    assert of_sentences < 0


def test_without_evidence_a_report_is_as_before_and_can_be_explained_later(
    run: Run, reported: Path, model: Path, tmp_path: Path
):
    out = tmp_path / "later"
    bag = reported / "out" / "bags" / "one.h5"
    assert run("report", bag, "--model", model, "--out", out, "--no-evidence")[0] == 0
    report = read_json(out / "one.json")
    assert report.evidence is None
    assert [(one.method, one.top_tiles, one.faithfulness) for one in report.sentences] == [(None, (), None)]
    assert "<code>wsi-mivpg explain</code> finds and tests it" in (out / "one.html").read_text(encoding="utf-8")
    assert not (out / "evidence").exists()
    assert run("explain", out / "one.json")[0] == 0
    explained = read_json(out / "one.json")
    assert explained.text == report.text
    assert "was not asked for" not in (out / "one.html").read_text(encoding="utf-8")
    places = [[(tile.x, tile.y) for tile in one.top_tiles] for one in explained.sentences]
    at_once = read_json(reported / "out" / "one.json").sentences
    assert places == [[(tile.x, tile.y) for tile in one.top_tiles] for one in at_once]
    drawn = Image.open(out / "explain/one/gradient/one/report_rank.png")
    assert drawn.mode == "RGB"  # on white: the report names no slide
    assert not list(out.glob("explain/**/*_tile-*.png"))


def test_every_map_has_its_pictures_and_the_maps_lie_over_the_tiles(explained: Path):
    report = read_json(explained / "one.json")
    evidence = read_evidence(explained / str(report.evidence))
    assert evidence.weights.keys() == {"attention", "gradient", "leave-out"}
    names = [*(f"sentence-{number}" for number in range(1, len(report.sentences) + 1)), "report"]
    (slide,) = evidence.slides
    covered = np.zeros((603, 701), bool)
    for x, y in slide.coords:
        covered[y : y + 64, x : x + 64] = True
    for method in evidence.weights:
        folder = explained / "explain" / "one" / method / "one"
        for name in names:
            for scale in ("rank", "raw"):
                drawn = np.asarray(Image.open(folder / f"{name}_{scale}_map.png"))
                np.testing.assert_array_equal(drawn[..., 3], np.where(covered, 255, 0))
                assert Image.open(folder / f"{name}_{scale}.png").mode == "RGB"


def test_the_top_tiles_are_the_slides_own_pixels(reported: Path, explained: Path):
    report = read_json(explained / "one.json")
    folder = explained / "explain" / "one" / "gradient" / "one"
    assert report.top_tiles
    with open_slide(reported / "slides" / "one.tiff") as slide:
        for place, tile in enumerate(report.top_tiles, 1):
            pixels = np.asarray(Image.open(folder / f"report_tile-{place}.png"))
            np.testing.assert_array_equal(pixels, slide.read_level(tile.x, tile.y, 0, (64, 64)))


def test_geojson_of_each_method_is_valid_and_holds_the_top_tiles(explained: Path):
    report = read_json(explained / "one.json")
    for method in ("attention", "gradient", "leave-out"):
        text = (explained / "explain" / "one" / method / "one.geojson").read_text()
        assert geojson.loads(text).is_valid
        if method == "gradient":
            tiles = [f for f in json.loads(text)["features"] if f["properties"]["name"].startswith("Report: tile")]
            corners = [tuple(tile["geometry"]["coordinates"][0][0]) for tile in tiles]
            assert corners == [(tile.x, tile.y) for tile in report.top_tiles]


def test_files_for_people_tell_no_sentence_that_is_not_assessable(run: Run, out: Path):
    report = read_json(out / "one.json")
    first, *others = report.sentences
    held_back = first.model_copy(update={"assessable": False})
    write_json(out / "one.json", report.model_copy(update={"sentences": (held_back, *others)}))
    code, shown, _ = run("explain", out / "one.json", "--tissue", "hsv")
    assert code == 0
    text = (out / "explain" / "one" / "gradient" / "one.geojson").read_text()
    for told in (shown, text):
        assert NOT_ASSESSABLE in told
        assert first.text not in told
    assert read_json(out / "one.json").sentences[0].text == first.text  # data keep what was written


def test_another_method_is_added_to_the_evidence_and_shown_on_the_page_with_sanity_checks(run: Run, out: Path):
    before = read_evidence(out / "evidence" / "one.h5")
    two = read_json(out / "two.json")
    other = two.model_copy(update={"text": "Other words.", "token_ids": two.token_ids[::-1], "sentences": ()})
    write_json(out / "two.json", other)
    code, shown, _ = run("explain", out / "one.json", "--method", "attention", "--sanity", "--tissue", "hsv", "--json")
    assert code == 0
    (result,) = json.loads(shown)["cases"]
    assert result["method"] == "attention"
    assert len(result["sentences"]) == len(before.sentences)
    after = read_evidence(out / "evidence" / "one.h5")
    assert after.weights.keys() == {"attention", "gradient"}
    np.testing.assert_array_equal(after.weights["gradient"], before.weights["gradient"])
    report = read_json(out / "one.json")
    assert {sentence.method for sentence in report.sentences} == {"attention"}
    assert sum(warning.endswith("no better than random tiles.") for warning in report.warnings) <= 1
    assert report.top_tiles[0].weight == pytest.approx(after.weights["attention"][-1].max())

    checks = json.loads((out / "explain" / "one" / "sanity.json").read_text())["attention"]
    assert result["sanity"] == {"attention": checks}
    assert [one["what"] for one in checks["reports"]] == ["two"]
    assert len(checks["weights"]) > 2
    for check in checks["reports"] + checks["weights"]:
        assert len(check["correlations"]) == len(report.sentences) + 1
        assert all(-1 <= one <= 1 for one in check["correlations"])


def test_a_case_that_fails_is_named_the_others_are_done_and_a_second_time_gives_the_same_files(
    run: Run, explained: Path, tmp_path: Path
):
    out = Path(shutil.copytree(explained, tmp_path / "out"))
    folder = out / "explain" / "one" / "gradient"
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    assert len(before) > 5
    (folder / "one" / "sentence-99_rank.png").write_bytes(b"of an earlier text")
    (out / "broken.json").write_text("{}")
    cases = [out / f"{name}.json" for name in ("broken", "none", "one")]
    code, shown, errors = run("explain", *cases, "--method", "gradient", "--tissue", "hsv")
    assert code == 3
    assert "broken.json is not a report" in errors
    assert "none.json" in errors
    assert shown.startswith("one, by gradient")
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert read_evidence(out / "evidence" / "one.h5").weights.keys() == {"attention", "gradient", "leave-out"}


def test_a_case_of_two_slides_keeps_them_apart(run: Run, out: Path, model: Path):
    bags = [out / "bags" / f"{name}.h5" for name in TISSUE]
    write_manifest(out / "cases.jsonl", [Case("a pair", (), tuple(bags), (), None)])
    assert run("report", out / "cases.jsonl", "--model", model, "--out", out, "--no-evidence")[0] == 0
    path = json_path(out, "a pair")
    report = read_json(path)
    assert run("explain", path, "--method", "attention")[0] == 0
    evidence = read_evidence(out / str(read_json(path).evidence))
    assert [slide.slide_id for slide in evidence.slides] == [one.slide_id for one in report.slides] == list(TISSUE)
    alone = [FeatureBag.open(bag).coords for bag in bags]
    for slide, coords in zip(evidence.slides, alone, strict=True):
        np.testing.assert_array_equal(slide.coords, coords)
    weights = evidence.weights["attention"][-1]
    assert weights.sum() == pytest.approx(1, abs=1e-4)  # of the case, not of each slide
    best = int(weights.argmax())
    in_second = best >= len(alone[0])
    top = read_json(path).top_tiles[0]
    assert (top.slide_id, top.x, top.y) == (list(TISSUE)[in_second], *evidence.coords[best])
    folder = out / "explain" / path.stem / "attention"
    shown = colours(raw_scaled(weights))[:, 1]  # of viridis, green grows with the weight
    for slide in evidence.slides:
        drawn = np.asarray(Image.open(folder / slide.slide_id / "report_raw_map.png"))
        assert drawn[..., 1].max() == slide.of(shown).max()
    found = [json.loads((folder / f"{name}.geojson").read_text())["features"] for name in TISSUE]
    tiles = [one for of_slide in found for one in of_slide if one["properties"]["name"].startswith("Report: tile")]
    assert len(tiles) == len(read_json(path).top_tiles)


def _changed(out: Path, **changes: object) -> Report:
    report = read_json(out / "one.json").model_copy(update=changes)
    write_json(out / "one.json", report)
    return report


def test_a_bag_that_is_gone_or_was_made_again_is_refused(run: Run, out: Path):
    bag = out / "bags" / "one.h5"
    kept = bag.read_bytes()
    shutil.copy(out / "bags" / "two.h5", bag)
    code, _, errors = run("explain", out / "one.json")
    assert code == 1
    assert "made again" in errors
    assert "tiles" in errors
    bag.write_bytes(kept + b"\0")
    assert "its content is another" in run("explain", out / "one.json")[2]
    bag.unlink()
    code, _, errors = run("explain", out / "one.json")
    assert code == 1
    assert str(bag) in errors


def test_a_model_that_is_gone_or_wrote_another_text_is_refused(run: Run, out: Path, model: Path):
    report = _changed(out, model={"name": str(out / "moved")})
    code, _, errors = run("explain", out / "one.json")
    assert code == 1
    assert str(out / "moved") in errors
    assert report.mean_logprob is not None
    _changed(out, mean_logprob=report.mean_logprob - 1)
    code, _, errors = run("explain", out / "one.json", "--model", model)
    assert code == 1
    assert "nats per token" in errors


def test_reports_that_cannot_be_explained_say_why(run: Run, out: Path):
    _changed(out, token_ids=())
    assert "older version" in run("explain", out / "one.json")[2]
    _changed(out, text="", sentences=())
    assert "empty" in run("explain", out / "one.json")[2]


def test_slides_and_models_that_were_moved_are_found_again_and_another_slide_is_refused(
    run: Run, reported: Path, out: Path, model: Path
):
    report = read_json(out / "one.json")
    gone = report.slides[0].model_copy(update={"path": str(out / "gone.tiff")})
    _changed(out, slides=(gone,), model={"name": "moved too"})
    page = (out / "one.html").read_bytes()
    code, _, notes = run("explain", out / "one.json", "--model", model, "--tissue", "hsv")
    assert code == 0
    assert "--slide" in notes
    assert (out / "one.html").read_bytes() == page  # with the pictures of the slide
    assert not list((out / "explain").rglob("*_tile-*.png"))

    asked = ["explain", out / "one.json", "--model", model, "--tissue", "hsv", "--slide"]
    code, _, errors = run(*asked, reported / "slides" / "two.tiff")
    assert code == 1
    assert "not the slide" in errors
    moved = shutil.copy(reported / "slides" / "one.tiff", out / "renamed.tiff")
    assert run(*asked, moved)[0] == 0
    assert list((out / "explain").rglob("*_tile-*.png"))


def test_an_unknown_method_is_wrong_usage(run: Run, out: Path):
    code, _, errors = run("explain", out / "one.json", "--method", "magic")
    assert code == 2
    assert "magic" in errors
