"""`ask` and the ways in which `generate` asks: sections and fields. Bad input is named, the rest goes on."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.provenance import PROVENANCE
from tests.tiny_captioner import tiny_config, write_tiny_language_model
from wsi_mivpg.bags import write_bag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cohorts.case import Case, write_manifest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_language_model(folder / "base")
    SlideCaptioner.create(tiny_config(folder / "base")).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three cases, one of them of two slides and one for training."""
    rng = np.random.default_rng(0)
    cases = []
    for name, slides, split in (("a", 1, "test"), ("b", 2, "test"), ("c", 1, "train")):
        paths = tuple(tmp_path / "bags" / f"{name}{slide}.h5" for slide in range(slides))
        for path in paths:
            _bag(path, rng.normal(0, 3, (5, 12)))
        cases.append(Case(name, (), paths, (f"report {name}",), split))
    write_manifest(tmp_path / "cases.jsonl", cases)
    return tmp_path / "cases.jsonl"


def _bag(path: Path, features: np.ndarray, encoder: str = "some-encoder") -> None:
    path.parent.mkdir(exist_ok=True)
    coords = np.column_stack([np.arange(len(features)), np.zeros(len(features), np.int64)]) * 300
    provenance = replace(PROVENANCE, slide_id=path.stem, encoder=encoder)
    write_bag(path, features.astype(np.float16), coords, np.ones(len(features), np.float32), provenance)


def test_every_case_answers_every_question_in_json_and_csv(
    run: Run, model: Path, manifest: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "questions.yaml"
    asked.write_text("- question: Tumour?\n- id: grade\n  question: Grade?\n  choices: [low, mid, high]\n")
    out = tmp_path / "out"
    code, shown, _ = run(
        "ask", manifest, "--split", "test", "--model", model, "--questions", asked, "--out", out, "--json"
    )
    assert code == 0
    written = json.loads((out / "answers.json").read_text())
    assert written == json.loads(shown)
    assert [(one["case_id"], one["question_id"]) for one in written["answers"]] == [
        (case, question) for case in "ab" for question in ("q1", "grade")
    ]
    for one in written["answers"]:
        assert sum(score["probability"] for score in one["scores"]) == pytest.approx(1)
        assert sum(score["length_normalised"] for score in one["scores"]) == pytest.approx(1)
        assert one["probability"] == max(score["probability"] for score in one["scores"])
        assert one["orders"] == (2 if one["question_id"] == "q1" else 6)
    with (out / "answers.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["answer"] for row in rows] == [one["answer"] for one in written["answers"]]
    assert not (out / "failures.csv").exists()


def test_bags_and_folders_of_bags_are_cases(run: Run, model: Path, manifest: Path, tmp_path: Path) -> None:
    code, shown, _ = run("ask", tmp_path / "bags", "--model", model, "--question", "Tumour?", "--prior")
    assert code == 0
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["a0", "b0", "b1", "c0"]


def test_what_cannot_be_asked_is_named_and_the_rest_is_answered(
    run: Run, model: Path, manifest: Path, tmp_path: Path
) -> None:
    _bag(tmp_path / "bags" / "a0.h5", np.full((3, 12), np.nan))
    _bag(tmp_path / "bags" / "c0.h5", np.zeros((3, 12)), encoder="another-encoder")
    out = tmp_path / "out"
    code, _, errors = run(
        "ask", manifest, tmp_path / "none.h5", "--model", model, "--question", "Tumour?", "--choice", "no", "--choice",
        "yes", "--out", out,
    )  # fmt: skip
    assert code == 3
    assert [one["case_id"] for one in json.loads((out / "answers.json").read_text())["answers"]] == ["b"]
    with (out / "failures.csv").open() as stream:
        failures = {Path(row["slide"]).name: row["error"] for row in csv.DictReader(stream)}
    assert failures.keys() == {"a", "c", "none.h5"}
    assert "NaN" in failures["a"]
    assert "another-encoder" in failures["c"]
    assert errors.count("error:") == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --question or --questions"),
        (["--question", "A?", "--questions", "b.yaml"], "either --question or --questions"),
        (["--question", "A?", "--yes-no", "--choice", "a"], "either --yes-no or those of --choice"),
        (["--question", "A?", "--choice", "a"], "two or more"),
        (["--questions", "missing.yaml"], "cannot read questions"),
        (["--question", "A?", "--split", "all"], "not train, val or test"),
    ],
)
def test_wrong_usage_is_told_before_a_model_is_loaded(
    run: Run, manifest: Path, options: list[str], message: str
) -> None:
    code, _, errors = run("ask", manifest, "--model", "no-such-model", *options)
    assert code == 2
    assert message in " ".join(errors.replace("│", " ").split())


def test_nothing_answered_is_exit_code_1(run: Run, model: Path, manifest: Path, tmp_path: Path) -> None:
    assert run("ask", manifest, "--split", "val", "--model", model, "--question", "A?")[0] == 1
    assert run("ask", tmp_path / "nothing", "--model", model, "--question", "A?")[0] == 1


def test_generate_fills_fields_and_tells_them_as_text(run: Run, model: Path, manifest: Path, tmp_path: Path) -> None:
    schema = tmp_path / "mine.json"
    schema.write_text(
        '{"type": "object", "properties": {"grade": {"enum": ["low", "high"]}, "foci": {"type": "integer"}}}'
    )
    words = tmp_path / "words.jinja"
    words.write_text("Grade {{ grade or 'unknown' }}.")
    out = tmp_path / "fields.jsonl"
    code, _, _ = run(
        "generate", manifest, "--model", model, "--fields", schema, "--template", words, "--out", out, "--batch-size", 2
    )
    assert code == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["case_id"] for line in lines] == ["a", "b", "c"]
    for line in lines:
        grade, foci = line["fields"]
        assert line["text"] == f"Grade {grade['value'] or 'unknown'}."
        assert grade["probability"] + sum(share for _, share in grade["alternatives"]) == pytest.approx(1)
        assert (foci["name"], foci["assessable"]) == ("foci", foci["value"] is not None)
        assert line["mean_logprob"] < 0
    code, _, errors = run("generate", manifest, "--model", model, "--fields", "biops", "--out", out)
    assert code == 2
    assert "biopsy, resection, virtual-biopsy" in errors


def test_generate_takes_sections_apart(run: Run, model: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "sections.jsonl"
    code, _, _ = run("generate", manifest, "--model", model, "--sections", "Specimen;Final diagnosis", "--out", out)
    assert code == 0
    for line in map(json.loads, out.read_text().splitlines()):
        assert {*line["sections"], *line["missing_sections"]} == {"Specimen", "Final diagnosis"}
    code, _, errors = run("generate", manifest, "--model", model, "--sections", "Diagnosis;Conclusion", "--out", out)
    assert code == 2
    assert "are the same" in errors
