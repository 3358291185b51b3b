"""`report` at scale: cases of a manifest in batches, resumed, forced, limited, killed, beside extraction."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.colour_encoder import WAITING_NAME, WAITS_FOR
from tests.cli.report_rig import ROOT, whole_lines, write_features, write_model
from tests.conftest import Rectangle, painted
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.cohorts.case import Case, read_manifest, write_manifest
from wsi_mivpg.cohorts.virtual import write_pyramid
from wsi_mivpg.evidence import read_evidence
from wsi_mivpg.reports import Report, read_json

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--no-evidence", "--no-pages")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cases.jsonl: a, c and d of one slide, b of two, one of which is stained otherwise."""
    folder, rng = tmp_path_factory.mktemp("cases"), np.random.default_rng(0)
    listed = []
    for name, count in (("a", 1), ("b", 2), ("c", 1), ("d", 1)):
        uids = {f"dicom_{of}_uid": f"1.2.{n}" for n, of in enumerate(("study", "series", "instance"))}
        features = [rng.normal(0, 3, (5 + 40 * n, 12)) for n in range(count)]
        bags = [
            write_features(folder / f"{name}{n}.h5", features[n], **(uids if name == "c" else {})) for n in range(count)
        ]
        stain = {"stain": "H & E;Ki-67"} if name == "b" else {}
        listed.append(Case(name, (), tuple(bags), (), None, attributes=stain))
    write_manifest(folder / "cases.jsonl", listed)
    return folder / "cases.jsonl"


def records(out: Path) -> dict[str, Report]:
    found = whole_lines(out)
    assert len({one.case_id for one in found}) == len(found)
    return {one.case_id: one for one in found}


def texts(out: Path) -> dict[str, str]:
    return {case_id: one.text for case_id, one in records(out).items()}


def test_batches_of_any_size_give_the_same_texts_and_every_case_its_record_page_and_row(
    run: Run, model: Path, cases: Path, tmp_path: Path
):
    for size in (1, 3, 16):
        out = tmp_path / str(size)
        pages = () if size == 16 else ("--no-pages",)
        how = ["--model", model, "--out", out, "--batch-size", size, "--no-evidence", *pages]
        code, shown, notes = run("report", cases, *how)
        assert code == 0
        assert "4 cases in" in notes
        assert "a minute" in notes
        assert shown.splitlines()[:4] == [f"{case_id}: {text}" for case_id, text in texts(out).items()]
    assert texts(tmp_path / "1") == texts(tmp_path / "3") == texts(tmp_path / "16")
    assert len(set(texts(out).values())) > 1
    with (out / "reports.csv").open(newline="", encoding="utf-8") as stream:
        assert {row["case_id"]: row["text"] for row in csv.DictReader(stream)} == texts(out)
    index = (out / "index.html").read_text()
    for case_id, record in records(out).items():
        assert f'href="{case_id}.html"' in index
        assert read_json(out / f"{case_id}.json") == record


def test_a_case_is_kept_while_all_that_decides_its_text_is_the_same_and_done_again_when_it_is_not(
    run: Run, model: Path, cases: Path, tmp_path: Path
):
    asked = ["report", cases, "--model", model, "--out", tmp_path, *QUICK]
    assert run(*asked)[0] == 0
    first = (tmp_path / "reports.jsonl").read_bytes()
    code, shown, notes = run(*asked, "--json")
    assert code == 0
    assert "no case to write (4 were there)" in notes
    assert [one["case_id"] for one in json.loads(shown)] == list("abcd")
    assert (tmp_path / "reports.jsonl").read_bytes() == first

    (tmp_path / "c.json").unlink()
    assert "1 case in" in run(*asked)[2]
    assert (tmp_path / "c.json").exists()
    before = records(tmp_path)
    assert "4 cases in" in run(*asked, "--prompt", "Where?")[2]
    after = records(tmp_path)
    assert {one.prompt for one in after.values()} == {"Where?"}
    assert all(after[name].settings_hash != before[name].settings_hash for name in "abcd")
    assert "4 cases in" in run(*asked, "--prompt", "Where?", "--overwrite")[2]
    (model / "trust.json").write_text("{}")  # another calibration is another report
    try:
        assert "4 cases in" in run(*asked, "--prompt", "Where?")[2]
    finally:
        (model / "trust.json").unlink()


def test_each_slide_of_a_case_states_its_stain_and_its_contribution_and_other_stains_are_a_warning(
    run: Run, model: Path, cases: Path, tmp_path: Path
):
    assert run("report", cases, "--model", model, "--out", tmp_path, "--no-evidence")[0] == 0
    report = records(tmp_path)["b"]
    assert [slide.stain for slide in report.slides] == ["H & E", "Ki-67"]
    assert [(slide.n_tiles, slide.n_read) for slide in report.slides] == [(5, 5), (45, 45)]
    shares = [slide.contribution for slide in report.slides]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert min(shares) > 0
    assert [text for text in report.warnings if "stain" in text] == [
        "Slide b1 is stained with Ki-67; the model was trained on H&E."
    ]
    named = records(tmp_path)["c"].slides[0].dicom
    assert named is not None
    assert (named.study_uid, named.instance_uid) == ("1.2.0", "1.2.2")
    assert report.slides[0].dicom is None
    page = (tmp_path / "b.html").read_text()
    assert "Ki-67" in page
    assert "Share of attention" in page
    assert "Stain</th>" not in (tmp_path / "a.html").read_text()


def test_a_model_with_a_limit_reads_a_fair_share_of_each_slide_and_evidence_is_about_these(
    run: Run, cases: Path, tmp_path: Path
):
    limited = write_model(tmp_path, max_instances=16, max_new_tokens=8)
    out = tmp_path / "out"
    pair = tmp_path / "pair.jsonl"
    write_manifest(pair, [case for case in read_manifest(cases) if case.case_id == "b"])
    assert run("report", pair, "--model", limited, "--out", out, *QUICK, "--prompt", "Where?")[0] == 0
    report = records(out)["b"]
    assert [(slide.n_tiles, slide.n_read) for slide in report.slides] == [(5, 5), (45, 11)]
    assert any("16 of 50" in text for text in report.warnings)
    assert run("explain", out / "b.json", "--method", "attention")[0] == 0  # reads the same instances, asked the same
    explained = read_json(out / "b.json")
    coords = {tuple(place) for place in FeatureBag.open(cases.parent / "b1.h5").coords.tolist()}
    assert {(tile.x, tile.y) for tile in explained.top_tiles if tile.slide_id == "b1"} <= coords
    assert len(read_evidence(out / str(explained.evidence))) == 16


def test_a_case_whose_evidence_is_gone_is_done_again(run: Run, model: Path, cases: Path, tmp_path: Path):
    pair = tmp_path / "pair.jsonl"
    write_manifest(pair, [case for case in read_manifest(cases) if case.case_id == "b"])
    asked = ("report", pair, "--model", model, "--out", tmp_path / "out", "--no-pages")
    assert run(*asked)[0] == 0
    evidence = tmp_path / "out" / str(records(tmp_path / "out")["b"].evidence)
    assert "(1 were there)" in run(*asked)[2]
    evidence.unlink()
    assert "1 case in" in run(*asked)[2]
    assert evidence.is_file()


def test_bags_unlike_those_of_the_training_are_refused_or_forced_and_the_report_says_so(
    run: Run, model: Path, cases: Path, tmp_path: Path
):
    features = np.random.default_rng(1).normal(0, 3, (5, 12))
    write_features(tmp_path / "coarse.h5", features, target_mpp=1.0)
    write_features(tmp_path / "broken.h5", np.full((3, 12), np.nan))
    write_features(tmp_path / "empty.h5", np.zeros((0, 12)))
    given = [cases, *(tmp_path / f"{name}.h5" for name in ("coarse", "broken", "empty"))]
    asked = ["report", *given, "--model", model, "--out", tmp_path / "out", *QUICK]
    code, _, _ = run(*asked)
    assert code == 3
    assert list(texts(tmp_path / "out")) == ["a", "b", "c", "d"]
    with (tmp_path / "out" / "failures.csv").open(newline="") as stream:
        failures = {Path(row["slide"]).stem: row["error"] for row in csv.DictReader(stream)}
    assert failures.keys() == {"coarse", "broken", "empty"}
    assert "target_mpp 1.0, but this model was trained on 0.5" in failures["coarse"]
    assert "--force" in failures["coarse"]
    assert "NaN" in failures["broken"]
    assert "no tissue" in failures["empty"]
    assert "coarse.h5" in (tmp_path / "out" / "index.html").read_text()

    assert run(*asked, "--force")[0] == 3
    forced = records(tmp_path / "out")["coarse"]
    assert forced.forced == ("bag of slide 'coarse' has target_mpp 1.0, but this model was trained on 0.5",)
    assert any("forced" in text for text in forced.warnings)
    assert records(tmp_path / "out")["a"].forced == ()
    assert run("explain", tmp_path / "out" / "coarse.json", "--method", "attention")[0] == 0
    assert run("report", cases, "--model", model, "--out", tmp_path / "out", *QUICK)[0] == 0
    assert not (tmp_path / "out" / "failures.csv").exists()
    assert "coarse" in texts(tmp_path / "out")  # what other runs wrote stays


def test_missing_bags_are_made_beside_the_writing_and_a_bad_slide_stops_nobody(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = write_model(
        tmp_path,
        3,
        encoder=WAITING_NAME,
        encoder_weights_sha256="0" * 64,
        tile_px=64,
        tissue={"segmenter": "hsv-saturation/1", "min_tissue": 0.5},
    )
    for number in range(4):
        pixels = painted((701, 603), [Rectangle(100, 130, 420, 350)], seed=number)
        pixels[130:480, 100:520, 2 if number == 3 else 0] //= 16
        write_pyramid(tmp_path / f"s{number}.tiff", pixels, 0.5)
    (tmp_path / "bad.svs").write_bytes(b"II*\0 this is no slide")
    listed = [("pair", "s0.tiff;s1.tiff"), ("half", "s2.tiff;bad.svs"), ("last", "s3.tiff"), ("gone", "none.svs")]
    (tmp_path / "cases.csv").write_text("case_id,slides\n" + "".join(f"{one},{paths}\n" for one, paths in listed))
    out = tmp_path / "out"
    # The last slide is not encoded before the first case is written.
    monkeypatch.setenv(WAITS_FOR, str(out / "pair.json"))
    code, _, errors = run("report", tmp_path / "cases.csv", "--model", model, "--out", out, "--no-evidence")
    assert code == 3
    assert "bad.svs" in errors
    assert "(no report on case half)" in errors
    assert "none.svs: no such file; check the path (no report on case gone)" in errors
    assert errors.count("report [4/4]") == 1  # those that failed are over, too
    assert list(texts(out)) == ["pair", "last"]
    assert [slide.slide_id for slide in records(out)["pair"].slides] == ["s0", "s1"]
    made = FeatureBag.open(out / "bags" / "s0.h5").provenance
    assert made is not None
    tissue = (made.tissue_method, made.min_tissue)
    assert (*tissue, made.case_id) == ("hsv-saturation/1", 0.5, "pair")  # found as the model's own
    assert {path.name for path in (out / "thumbnails").iterdir()} == {"pair.jpg", "last.jpg"}
    bags = {path: path.stat().st_mtime_ns for path in (out / "bags").glob("*.h5")}
    code, _, notes = run("report", tmp_path / "cases.csv", "--model", model, "--out", out, "--no-evidence")
    assert code == 3
    assert "(2 were there)" in notes
    assert {path: path.stat().st_mtime_ns for path in (out / "bags").glob("*.h5")} == bags
    code, _, errors = run("report", tmp_path / "s3.tiff", "--model", model, "--out", tmp_path / "x", "--tissue", "none")
    assert code == 1
    assert "tissue found by 'none', but this model was trained on 'hsv-saturation/1'" in errors


def test_kills_at_random_moments_tear_lose_and_double_nothing_and_memory_does_not_grow_with_cases():
    command = [sys.executable, "-m", "tests.cli.report_rig", "crash", "memory", "--kills", "5", "--counts", "16", "72"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["crash"]["kills"] == 5
    assert found["crash"]["looked_at"] > 5
    # The features of 56 more cases are 28 MB.
    assert found["memory"]["72"] - found["memory"]["16"] < 10
