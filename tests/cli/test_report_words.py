"""`report` asks as it is told to, fills schemas, chooses among samples, and puts what it wrote before the gates."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.report_rig import write_features, write_model
from wsi_mivpg.reports import Report, read_json, write_json

Run = Callable[..., tuple[int, str, str]]
SCHEMA = {
    "type": "object",
    "properties": {"organ": {"enum": ["lung", "skin"]}, "necrosis": {"type": "boolean"}},
    "required": ["organ", "necrosis"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), max_new_tokens=12)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("bags") / "a.h5", np.random.default_rng(0).normal(0, 3, (8, 12)))


@pytest.fixture
def report(run: Run, model: Path, bag: Path, tmp_path: Path) -> Callable[..., Report]:
    def write(*how: object) -> Report:
        code, _, errors = run("report", bag, "--model", model, "--out", tmp_path, "--no-evidence", "--no-pages", *how)
        assert code == 0, errors
        assert "1 case in" in errors  # none of these is another's
        return read_json(tmp_path / "a.json")

    return write


def test_gates_sections_fields_and_samples_are_in_the_report_and_each_way_is_a_report_of_its_own(
    report: Callable[..., Report], tmp_path: Path
):
    plain = report()
    assert "image dependence" in {gate.name for gate in plain.gates}
    assert {gate.passed for gate in plain.gates} == {None}
    assert any("not calibrated" in text for text in plain.warnings)
    assert plain.sentences

    bare = report("--no-trust")
    assert (bare.text, bare.gates, bare.sentences) == (plain.text, (), ())

    parted = report("--sections", "Diagnosis;Comment", "--no-trust")
    assert parted.prompt == "What?\nWrite these sections, each below its header:\nDiagnosis:\nComment:"
    assert any("Sections that were asked for and are not there: Diagnosis, Comment" in one for one in parted.warnings)

    (tmp_path / "own.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "own.jinja").write_text("Organ: {{ organ or 'unknown' }}.")
    filled = report("--fields", tmp_path / "own.json")
    assert [field.name for field in filled.fields] == ["organ", "necrosis"]
    assert filled.fields[0].value in ("lung", "skin", None)
    assert filled.text == f"Organ: {filled.fields[0].value or 'unknown'}."
    assert "image dependence" in {gate.name for gate in filled.gates}

    chosen = report("--samples", 3, "--seed", 5)
    assert chosen.consensus is not None
    assert len(chosen.consensus.samples) == 4
    assert chosen.consensus.samples[0] == plain.text  # the likeliest text is one of them
    assert chosen.text == chosen.consensus.samples[chosen.consensus.chosen]
    assert len({one.settings_hash for one in (plain, bare, parted, filled, chosen)}) == 5


def test_explaining_a_report_keeps_what_is_known_of_its_sentences(
    run: Run, report: Callable[..., Report], tmp_path: Path
):
    before = report()
    hidden = [one.model_copy(update={"assessable": False, "confidence": 0.1}) for one in before.sentences]
    write_json(tmp_path / "a.json", before.model_copy(update={"sentences": tuple(hidden)}))
    assert run("explain", tmp_path / "a.json", "--method", "attention")[0] == 0
    after = read_json(tmp_path / "a.json")
    assert [(one.assessable, one.confidence) for one in after.sentences] == [(False, 0.1)] * len(hidden)
    assert after.sentences[0].faithfulness is not None


def test_ways_that_exclude_each_other_are_wrong_usage(run: Run, model: Path, bag: Path, tmp_path: Path):
    for how in (("--fields", "biopsy", "--samples", 2), ("--template", "x.jinja")):
        code, _, errors = run("report", bag, "--model", model, "--out", tmp_path, *how)
        assert code == 2
        assert how[0] in errors
