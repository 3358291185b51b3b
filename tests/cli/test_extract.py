"""``wsi-mivpg extract``: every kind of input, several encoders and processes, and settings refused before any work."""

import json
import re
import shutil

import pytest
from PIL import Image

from tests.extraction.crash import bags, write_slides
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.extraction.ledger import read_status

OWN = "tests.extraction.driver:mean_colour"


@pytest.fixture
def extract(run):
    return lambda *arguments, encoder=OWN: run("extract", *arguments, "--encoder", encoder)


@pytest.fixture
def slides(tmp_path):
    return write_slides(tmp_path / "slides", 3)


def test_a_manifest_gives_ids_cases_and_resolutions(extract, slides, tmp_path):
    manifest = tmp_path / "cohort.csv"
    manifest.write_text("slide_id,path,case_id,mpp\nfirst,slides/s0.tiff,c1,\nsecond,slides/s1.tiff,c1,0.25\n")
    code, _, _ = extract(manifest, "--out", tmp_path / "bags")
    assert code == 0
    first, second = (FeatureBag.open(tmp_path / "bags" / f"{name}.h5") for name in ("first", "second"))
    assert (first.provenance.case_id, first.provenance.slide_path) == ("c1", "s0.tiff")
    assert (first.slide_mpp, second.slide_mpp) == (pytest.approx(0.5), 0.25)
    assert second.provenance.mpp_source == "user"


def test_a_slide_that_a_manifest_names_in_vain_fails_by_itself(extract, slides, tmp_path):
    (tmp_path / "cohort.csv").write_text("slide_id,path\na,slides/s0.tiff\nb,slides/absent.tiff\n")
    code, out, err = extract(tmp_path / "cohort.csv", "--out", tmp_path / "bags", "--json")
    assert code == 3
    assert "absent.tiff: no such file" in err
    assert [one["slide_id"] for one in json.loads(out)["bags"]] == ["a"]
    assert {row.slide_id: row.state for row in read_status(tmp_path / "bags" / "status.csv")} == {
        "a": "done",
        "b": "failed",
    }
    assert "## Failed" in (tmp_path / "bags" / "summary.md").read_text()


def test_a_pattern_and_a_missing_input_beside_it(extract, slides, tmp_path):
    code, _, err = extract(slides, tmp_path / "nowhere", "--pattern", "s[01].tiff", "--out", tmp_path / "bags")
    assert code == 3
    assert "nowhere" in err
    assert list(bags(tmp_path / "bags")) == ["s0.h5", "s1.h5"]
    assert "nowhere" in (tmp_path / "bags" / "failures.csv").read_text()


def test_patches_and_their_resolution(extract, tmp_path):
    (tmp_path / "patches" / "s").mkdir(parents=True)
    Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / "patches" / "s" / "0.png")
    code, _, _ = extract(tmp_path / "patches", "--patches", "--mpp", "0.5", "--out", tmp_path / "bags")
    assert code == 0
    assert not FeatureBag.open(tmp_path / "bags" / "s.h5").coords_known


def test_two_processes_share_the_slides(extract, slides, tmp_path):
    code, out, _ = extract(slides, "--out", tmp_path / "two", "--device", "cpu,cpu", "--json")
    assert code == 0
    told = json.loads(out)
    assert [one["slide_id"] for one in told["bags"]] == ["s0", "s1", "s2"]
    assert not any(one["skipped"] for one in told["bags"])
    assert len(told["throughput"]) == 2
    extract(slides, "--out", tmp_path / "one")
    assert bags(tmp_path / "two") == bags(tmp_path / "one")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--tile-mpp", "2"], "trained on 64 px of 0.5 microns.*--force"),
        (["--batch-size", "many"], "neither auto nor a number"),
        (["--weights", "a.bin", "--weights", "b.bin"], "2 for 1 encoders"),
        (["--device", "cpu", "--precision", "fp12"], "there is no precision 'fp12'"),
    ],
)
def test_bad_settings_are_refused_before_any_work(extract, slides, tmp_path, options, problem):
    encoder = "efficientnet-lite0" if "--precision" in options else OWN
    code, _, err = extract(slides, "--out", tmp_path / "bags", *options, encoder=encoder)
    assert code in (1, 2)
    assert re.search(problem, err)
    assert not bags(tmp_path / "bags")


def test_an_encoder_that_is_not_here_says_how_to_get_it(extract, slides, tmp_path):
    code, _, err = extract(slides, "--out", tmp_path / "bags", encoder="uni")
    assert code == 1
    assert "huggingface.co/MahmoodLab/UNI" in err
    assert "--weights" in err


def test_too_little_disk_is_refused_with_the_estimate(extract, slides, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    code, _, err = extract(slides, "--out", tmp_path / "bags")
    assert code == 1
    assert "3 of 3 slides to do; about" in err
    assert "free space there, choose another --out, or pass --force" in err
    assert extract(slides, "--out", tmp_path / "bags", "--force")[0] == 0


def test_a_cohort_gives_its_slides_its_patches_or_its_pictures(extract, slides, tmp_path):
    for name in ("one", "two", "three"):
        Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / f"{name}.png")
    cases = [
        {"case_id": "a", "slides": ["slides/s0.tiff", "slides/s1.tiff"], "images": ["one.png", "two.png"]},
        {"case_id": "b", "images": ["two.png", "three.png"]},
    ]
    cohort = tmp_path / "cases.jsonl"
    cohort.write_text("".join(json.dumps(case) + "\n" for case in cases))
    for out, options in (("s", []), ("p", ["--patches", "--mpp", "0.5"]), ("t", ["--patch-tokens"])):
        encoder = "tests.extraction.driver:quarters" if out == "t" else OWN
        assert extract(cohort, "--out", tmp_path / out, *options, encoder=encoder)[0] == 0
    assert list(bags(tmp_path / "s")) == ["s0.h5", "s1.h5"]
    assert FeatureBag.open(tmp_path / "s" / "s1.h5").provenance.case_id == "a"
    assert list(bags(tmp_path / "p")) == ["a.h5", "b.h5"]
    assert len(FeatureBag.open(tmp_path / "p" / "b.h5")) == 2
    assert list(bags(tmp_path / "t")) == ["one.h5", "three.h5", "two.h5"]
    cohort.write_text('{"case_id": "a"}\n')
    code, _, err = extract(cohort, "--out", tmp_path / "none")
    assert code == 1
    assert "its cases name no slides; pass --patches or --patch-tokens" in err
