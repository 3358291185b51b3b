"""``wsi-mivpg cohorts``: from a data set to a divided, checked and prepared manifest, with the right exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.provenance import PROVENANCE
from wsi_mivpg.bags import write_bag
from wsi_mivpg.cohorts.case import read_manifest

SECTIONS = "Gross: a polyp of 9 mm. Microscopic: {}. Ki-67 is 40 %. Diagnosis: adenoma number {}."


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A user's own CSV of 20 patients with two slides each, one row a slide; bags lie beside it."""
    rows = ["case_id,path,report,patient_id,grade"]
    for number in range(20):
        report = SECTIONS.format(f"tubular glands {'very ' * number}crowded", number)
        for side in "lr":
            name = f"s{number:02}{side}"
            rows.append(f'c{number:02},slides/{name}.svs,"{report if side == "l" else ""}",p{number:02},{number % 2}')
            features = np.random.default_rng([number, ord(side)]).normal(size=(6, 12)).astype(np.float16)
            (tmp_path / "bags").mkdir(exist_ok=True)
            coords = np.arange(12).reshape(6, 2)
            write_bag(tmp_path / "bags" / f"{name}.h5", features, coords, np.ones(6, np.float32), PROVENANCE)
    (tmp_path / "own.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "own.csv"


@pytest.fixture
def manifest(run, table: Path) -> Path:
    out = table.with_name("cohort.jsonl")
    assert run("cohorts", "import", "csv", table, "--out", out, "--bags", table.parent / "bags")[0] == 0
    return out


def test_import_split_check_prepare(run, tmp_path, manifest):
    divided, ready, diff = tmp_path / "split.csv", tmp_path / "ready.parquet", tmp_path / "changes.diff"
    code, out, _ = run("cohorts", "split", manifest, "--out", divided, "--seed", 1, "--stratify", "grade", "--json")
    assert code == 0
    assert json.loads(out)["train"] == {"cases": 14, "patients": 14, "slides": 28}
    record = json.loads((tmp_path / "split.csv.split.json").read_text())
    assert (record["seed"], record["fractions"]) == (1, {"train": 0.7, "val": 0.1, "test": 0.2})

    code, out, _ = run("cohorts", "check", divided)
    assert code == 0
    assert "rate     share of test reports that occur in train: 0 of 4 (0.0%) word for word" in out
    assert out.splitlines()[-1] == "20 cases: no leak, no error"

    arguments = ["--out", ready, "--drop", "gross,ihc", "--diff", diff, "--json"]
    code, out, _ = run("cohorts", "prepare", divided, *arguments)
    assert code == 0
    counts = json.loads(out)
    assert (counts["changed"], counts["dropped_sections"], counts["dropped_ihc_sentences"]) == (20, {"gross": 20}, 20)
    assert read_manifest(ready)[0].reports == ("Microscopic: tubular glands crowded. Diagnosis: adenoma number 0.",)
    assert "-Gross: a polyp of 9 mm." in diff.read_text()
    assert [case.split for case in read_manifest(ready)] == [case.split for case in read_manifest(divided)]


def test_import_says_and_counts_what_it_did_not_find(run, tmp_path, table):
    (tmp_path / "bags" / "s00l.h5").unlink()
    for side in "lr":
        (tmp_path / "bags" / f"s01{side}.h5").unlink()
    arguments = (
        "cohorts",
        "import",
        "csv",
        table,
        "--out",
        tmp_path / "c.jsonl",
        "--bags",
        tmp_path / "bags",
        "--json",
    )
    code, out, err = run(*arguments)
    assert code == 0
    found = json.loads(out)
    assert (found["cases"], found["patients"], found["bags"]) == (19, 19, 37)
    assert found["left_out"] == {f"cases without a bag in {tmp_path / 'bags'}": 1}
    assert found["incomplete"] == ["c00"]
    assert "left out: 1 cases without a bag in" in err
    assert "incomplete: 1 case(s) lack files, such as c00" in err


def test_a_leak_ends_with_exit_code_3_and_its_name(run, tmp_path, manifest):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["split"] = "train" if number else "test"
    rows[0]["patient_id"] = rows[1]["patient_id"]
    rows[2]["bags"] = ["bags/none.h5", "bags/s02r.h5"]
    (tmp_path / "leaky.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = run("cohorts", "check", tmp_path / "leaky.jsonl")
    assert code == 3
    assert "leak     1 patient(s) in several splits (train and test: 1): p01 (c00, c01)" in out
    assert "none.h5: no such bag" in out
    assert "2 leak(s) and error(s)" in out
    code, out, _ = run("cohorts", "check", tmp_path / "leaky.jsonl", "--json")
    assert code == 3
    assert {one["severity"] for one in json.loads(out)} >= {"leak", "error", "rate"}


def test_two_manifests_are_checked_as_one_cohort(run, tmp_path, manifest):
    for split, only in (("train", slice(0, 10)), ("test", slice(9, 20))):
        rows = [json.loads(line) | {"split": split} for line in manifest.read_text().splitlines()[only]]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = run("cohorts", "check", tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    assert code == 3
    assert "p09" in out


def test_frozen_sections_can_be_left_out(run, tmp_path):
    names = ("TCGA-AA-0001-01Z-00-DX1", "TCGA-AA-0001-01A-01-TS1", "TCGA-AA-0002-01A-01-BS1")
    entries = [{"id": name, "report": "x"} for name in names]
    (tmp_path / "a.json").write_text(json.dumps({"train": entries, "val": [], "test": []}))
    source, manifest = tmp_path / "a.json", tmp_path / "c.csv"
    code, out, err = run("cohorts", "import", "histgen", source, "--out", manifest, "--without-frozen", "--json")
    assert code == 0
    assert json.loads(out)["cases"] == 1
    assert "left out: 2 cases of frozen sections alone" in err
    assert read_manifest(manifest)[0].patient_id == "TCGA-AA-0001"


def test_a_manifest_that_is_wrong_is_told_by_row_and_column(run, tmp_path):
    (tmp_path / "c.csv").write_text("case_id,split\na,train\nb,dev\n")
    for command in (["check"], ["split", "--out", tmp_path / "x.csv"], ["prepare", "--out", tmp_path / "x.csv"]):
        code, _, err = run("cohorts", command[0], tmp_path / "c.csv", *command[1:])
        assert code == 1
        assert f"error: {tmp_path / 'c.csv'}: row 3, column split: 'dev'" in err
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "mimic", "x.json", "--out", "c.csv"], "'mimic' is none of manifest, csv"),
        (["prepare", "c.csv", "--out", "d.csv", "--drop", "grosss"], "'grosss' is none of gross, history"),
        (["prepare", "c.csv", "--out", "d.csv", "--case", "upper"], "'upper' is none of keep"),
        (["split", "c.csv", "--out", "d.csv", "--train", "2"], "--train"),
    ],
)
def test_wrong_usage_names_what_is_known(run, arguments, said):
    code, _, err = run("cohorts", *arguments)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())


def test_what_cannot_be_written_is_named(run, tmp_path, manifest):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run("cohorts", "split", manifest, "--out", tmp_path / "file" / "c.csv")
    assert code == 1
    assert str(tmp_path / "file" / "c.csv") in err
    code, _, err = run("cohorts", "split", manifest, "--out", tmp_path / "c.xlsx")
    assert code == 1
    assert ".csv, .parquet, .jsonl" in err


def test_shares_that_do_not_add_up_are_refused(run, tmp_path, manifest):
    code, _, err = run("cohorts", "split", manifest, "--out", tmp_path / "c.csv", "--train", "0.9")
    assert code == 1
    assert "add up to 1.2" in err


def test_splits_that_are_replaced_are_told(run, tmp_path, manifest):
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    assert "replaced" not in run("cohorts", "split", manifest, "--out", first)[2]
    assert f"{first} has splits; they are replaced in {second}" in run("cohorts", "split", first, "--out", second)[2]


def test_the_former_name_of_the_command_still_works_and_is_not_shown(run, tmp_path):
    code, out, _ = run("cohort", "virtual", "--out", tmp_path / "v", "--json")
    assert code == 0
    assert Path(json.loads(out)[0]["slides"][0]).is_file()
    assert " cohort " not in run("--help")[1].replace("cohorts", "")
