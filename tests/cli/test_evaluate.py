"""The evaluate command: files in, table, JSON and pages out, and exit codes that tell what was left out."""

import json
from pathlib import Path

import pytest

TEXTS = {
    "a": "Lung, core biopsy: squamous cell carcinoma, in 35% of the sampled tissue, in 2 foci.",
    "b": "Lung, core biopsy: no evidence of malignancy. Normal lung only.",
    "c": "Lung, core biopsy: necrosis, in 10% of the sampled tissue, as a single focus.",
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """References with patients and two splits, predictions, another system's and a control's."""
    lines = [
        {"case_id": name, "patient_id": f"p{name}", "split": "test", "reports": [text]} for name, text in TEXTS.items()
    ]
    lines += [{"case_id": f"t{n}", "split": "train", "reports": [TEXTS["b"]]} for n in range(3)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "ours.jsonl").write_text("\n".join(json.dumps({"case_id": n, "text": t}) for n, t in TEXTS.items()))
    (tmp_path / "theirs.json").write_text(json.dumps({name: [TEXTS["b"]] for name in TEXTS}))
    (tmp_path / "shuffled.csv").write_text(f'id,text\na,"{TEXTS["b"]}"\nb,"{TEXTS["c"]}"\nc,"{TEXTS["a"]}"\n')
    return tmp_path


def test_one_command_scores_with_baselines_controls_and_comparisons(run, files):
    code, out, err = run(
        "evaluate",
        files / "ours.jsonl",
        files / "manifest.jsonl",
        *("--split", "test", "--out", files / "out", "--json"),
        *("--compare", f"theirs={files / 'theirs.json'}", "--control", f"shuffled={files / 'shuffled.csv'}"),
    )
    data = json.loads(out)
    assert code == 0
    assert (data["n_cases"], data["n_patients"]) == (3, 3)
    assert [system["name"] for system in data["systems"]] == [
        "model",
        "theirs",
        "shuffled",
        "most frequent",
        "most frequent of true organ",
    ]
    assert data["systems"][0]["scores"]["exact_match"]["value"] == 1.0
    assert data["systems"][3]["scores"]["verbatim_in_train"]["value"] == 1.0  # of the manifest's own training split
    assert {one["system"] for one in data["comparisons"]} >= {"theirs", "shuffled"}
    assert json.loads((files / "out" / "evaluation.json").read_text()) == data
    assert "# Evaluation" in (files / "out" / "evaluation.md").read_text()
    assert "worst cases" in (files / "out" / "evaluation.html").read_text()
    assert "evaluation.html" in err


def test_the_table_shows_figures_signatures_and_what_is_absent(run, files):
    code, out, _ = run("evaluate", files / "ours.jsonl", files / "manifest.jsonl", "--split", "test")
    assert code == 0
    assert "rouge_l" in out
    assert "1.000 [1.000, 1.000]" in out
    assert "tok:words+numbers|case:lower" in out
    assert "text-only language model: absent" in out
    assert "\x1b[" not in out  # no colours into a pipe


@pytest.mark.parametrize("preset", ["r2gen", "reg2025", "sacrebleu", "rouge-score"])
def test_presets_add_their_metrics_or_say_why_not(run, files, preset):
    code, out, _ = run(
        "evaluate", files / "ours.jsonl", files / "manifest.jsonl", "--split", "test", "--preset", preset, "--json"
    )
    assert code == 0
    data = json.loads(out)
    found = " ".join([*data["signatures"], *data["absent"]])
    assert {"r2gen": "r2gen_bleu_4", "reg2025": "reg2025_bleu"}.get(preset, preset[:5]) in found
    assert "bleu_4" in data["signatures"]


def test_mismatched_ids_are_refused_and_can_be_treated_with_exit_code_3(run, files):
    arguments = ("evaluate", files / "ours.jsonl", files / "manifest.jsonl")
    code, _, err = run(*arguments)
    assert code == 1
    assert "no prediction for t0, t1, t2" in err
    code, out, _ = run(*arguments, "--missing", "empty", "--json")
    assert code == 3
    assert json.loads(out)["join"]["missing"] == ["t0", "t1", "t2"]
    assert json.loads(out)["n_cases"] == 6
    code, out, _ = run(*arguments, "--missing", "drop")
    assert code == 3
    assert "3 without prediction, left out: t0, t1, t2" in out


def test_one_pair_is_scored_without_nan(run, tmp_path):
    (tmp_path / "p.json").write_text('{"a": "Lung: necrosis."}')
    code, out, _ = run("evaluate", tmp_path / "p.json", tmp_path / "p.json")
    assert code == 0
    assert "nan" not in out.lower()
    assert "log(1/1) = 0" in out
    assert "one patient: nothing to resample" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no report"), ("Geschwür".encode("latin-1"), "not UTF-8"), (b'{"id": "a"}', "none of text")],
)
def test_bad_files_give_one_line_and_exit_code_1(run, files, content, message):
    (files / "bad.jsonl").write_bytes(content)
    code, out, err = run("evaluate", files / "bad.jsonl", files / "manifest.jsonl", "--split", "test")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert message in err
    assert "bad.jsonl" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preset", "bleurt"), "bleurt"),
        (("--missing", "ignore"), "ignore"),
        (("--split", "dev"), "dev"),
        (("--control", "file.json"), "NAME=FILE"),
        (("--resamples", "3"), "resamples"),
    ],
)
def test_wrong_options_are_wrong_usage(run, files, options, message):
    code, _, err = run("evaluate", files / "ours.jsonl", files / "manifest.jsonl", *options)
    assert code == 2
    assert message in err


def test_two_systems_of_one_name_are_refused(run, files):
    code, _, err = run(
        "evaluate",
        files / "ours.jsonl",
        files / "manifest.jsonl",
        "--split",
        "test",
        "--compare",
        f"model={files / 'theirs.json'}",
    )
    assert code == 1
    assert "two systems are called 'model'" in err


def test_an_unwritable_folder_is_refused_before_any_work(run, files):
    (files / "file").write_text("")
    code, out, err = run("evaluate", files / "ours.jsonl", files / "manifest.jsonl", "--out", files / "file" / "out")
    assert (code, out) == (1, "")
    assert "--out" in err


def test_references_in_a_parquet_manifest_are_read_with_their_splits(run, files):
    pytest.importorskip("pyarrow")
    from wsi_mivpg.cohorts.case import read_manifest, write_manifest

    write_manifest(files / "manifest.parquet", read_manifest(files / "manifest.jsonl"))
    scores = []
    for name in ("manifest.jsonl", "manifest.parquet"):
        code, out, _ = run("evaluate", files / "ours.jsonl", files / name, "--split", "test", "--json")
        assert code == 0
        scores.append(json.loads(out)["systems"])
    assert scores[0] == scores[1]
