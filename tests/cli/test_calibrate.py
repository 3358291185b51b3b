"""`calibrate` writes a model's gates from its cases, and a report then says whether its slides support it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.provenance import PROVENANCE
from tests.tiny_captioner import tiny_config, write_tiny_language_model
from wsi_mivpg.bags import FeatureBag, write_bag
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, in_memory, read_case
from wsi_mivpg.cli.case_trust import NOT_CALIBRATED, Drawn, draw_texts, with_consensus, with_trust
from wsi_mivpg.cohorts.case import Case, read_manifest, write_manifest
from wsi_mivpg.errors import ModelError
from wsi_mivpg.prompting import fill, load_schema
from wsi_mivpg.reports import FieldValue, Provenance, Report, read_json
from wsi_mivpg.trust import load_gates, write_gates

Run = Callable[..., tuple[int, str, str]]


def bag_of(folder: Path, name: str, offset: float = 0.0) -> Path:
    rng = np.random.default_rng([*name.encode()])
    features = (rng.normal(0, 2, (6, 12)) + offset).astype(np.float16)
    coords = np.column_stack([np.arange(6), np.zeros(6, np.int64)]) * 300
    path = folder / f"{name}.h5"
    write_bag(path, features, coords, np.ones(6, np.float32), replace(PROVENANCE, slide_id=name))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a manifest whose references are what it writes, but for one case."""
    folder = tmp_path_factory.mktemp("calibrate")
    write_tiny_language_model(folder / "base")
    captioner = SlideCaptioner.create(tiny_config(folder / "base", max_new_tokens=12)).eval()
    captioner.save_pretrained(folder / "model")
    cases = [Case(f"t{n}", (), (bag_of(folder, f"t{n}"),), ("x",), "train") for n in range(12)]
    for number in range(6):
        path = bag_of(folder, f"v{number}")
        text = captioner.generate([read_case("v", [FeatureBag.open(path)])])[0].text
        cases.append(Case(f"v{number}", (), (path,), ("Adenocarcinoma." if number == 5 else text,), "val"))
    write_manifest(folder / "cases.jsonl", cases)
    return folder


@pytest.fixture(scope="module")
def captioner(folder: Path) -> SlideCaptioner:
    return SlideCaptioner.from_pretrained(folder / "model")


@pytest.fixture
def calibrated(run: Run, folder: Path) -> dict[str, object]:
    """What `calibrate` prints; it is run once."""
    kept = folder / "calibrated.json"
    if not kept.exists():
        code, shown, _ = run(
            "calibrate",
            folder / "cases.jsonl",
            "--model",
            folder / "model",
            "--samples",
            2,
            "--batch-size",
            3,
            "--json",
        )
        assert code == 0
        kept.write_text(shown)
    found: dict[str, object] = json.loads(kept.read_text())
    return found


def copy_model(folder: Path, to: Path, *, with_gates: bool = False) -> None:
    to.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors", *(["trust.safetensors"] if with_gates else [])):
        (to / name).write_bytes((folder / "model" / name).read_bytes())


def case_of(folder: Path, name: str = "v0") -> CaseBags:
    return read_case(name, [FeatureBag.open(folder / f"{name}.h5")])


def trusted(captioner: SlideCaptioner, folder: Path, case: CaseBags, samples: int = 0, **fields: object) -> Report:
    drawn = with_consensus(draw_texts(captioner, [case], samples, 4, 0)[0])
    report = Report(case_id="v0", text=drawn.chosen.text, provenance=Provenance(created="now"))
    return with_trust(
        report.model_copy(update=fields), captioner, case, drawn, load_gates(folder / "model") if folder else None
    )


def test_it_says_how_many_reports_are_right_and_writes_one_file(calibrated: dict[str, object], folder: Path) -> None:
    assert (calibrated["calibration_cases"], calibrated["right_reports"], calibrated["training_cases"]) == (6, 5, 12)
    assert set(calibrated["thresholds"]) == {"image dependence", "distribution", "agreement"}  # type: ignore[call-overload]
    assert sorted(path.name for path in (folder / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "trust.safetensors",
    ]


def test_a_calibration_case_passes_and_every_sentence_gets_its_confidence(
    calibrated: object, captioner: SlideCaptioner, folder: Path
) -> None:
    report = trusted(captioner, folder, case_of(folder))
    assert [gate.name for gate in report.gates] == ["image dependence", "distribution"]
    assert report.supported
    assert report.sentences
    assert all(one.confidence is not None and 0 < one.confidence < 1 for one in report.sentences)
    assert report.consensus is None
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_samples_give_consensus_agreement_and_a_gate_for_it(
    calibrated: object, captioner: SlideCaptioner, folder: Path
) -> None:
    report = trusted(captioner, folder, case_of(folder), samples=2)
    assert report.consensus is not None
    assert len(report.consensus.samples) == 3
    assert report.consensus.samples[report.consensus.chosen] == report.text
    agreement = next(gate for gate in report.gates if gate.name == "agreement")
    assert agreement.value == report.consensus.agreement
    assert agreement.threshold is not None


def test_foreign_features_shut_the_distribution_gate_and_no_confidence_is_told(
    calibrated: object, captioner: SlideCaptioner, folder: Path
) -> None:
    bag_of(folder, "far", 40.0)
    report = trusted(captioner, folder, case_of(folder, "far"))
    gate = next(gate for gate in report.gates if gate.name == "distribution")
    assert gate.passed is False
    assert not report.supported
    assert all(sentence.confidence is None and sentence.assessable for sentence in report.sentences)
    assert any(warning.startswith("This report is not supported by its slides") for warning in report.warnings)


def test_another_slides_report_is_less_likely_here_than_its_own(
    calibrated: object, captioner: SlideCaptioner, folder: Path
) -> None:
    own, other = case_of(folder, "v1"), case_of(folder, "v2")
    drawn = Drawn(draw_texts(captioner, [own], 0, 1, 0)[0][0])
    report = Report(case_id="a", text=drawn.chosen.text, provenance=Provenance(created="now"))
    gates = load_gates(folder / "model")
    right, wrong = (with_trust(report, captioner, bags, drawn, gates).gates[0].value for bags in (own, other))
    assert wrong < right


def test_a_model_that_was_never_calibrated_decides_nothing_and_says_so(captioner: SlideCaptioner, folder: Path) -> None:
    case = case_of(folder)
    drawn = with_consensus(draw_texts(captioner, [case], 0, 1, 0)[0])
    report = with_trust(
        Report(case_id="v0", text=drawn.chosen.text, provenance=Provenance(created="now")), captioner, case, drawn, None
    )
    assert [(gate.name, gate.passed, gate.threshold) for gate in report.gates] == [("image dependence", None, None)]
    assert report.supported
    assert report.warnings == (NOT_CALIBRATED,)
    empty = Report(case_id="v0", text="", provenance=Provenance(created="now"))
    assert with_trust(empty, captioner, case, drawn, None) == empty


def test_a_templates_words_get_no_confidence_that_was_calibrated_on_the_models_own(
    calibrated: object, captioner: SlideCaptioner, folder: Path
) -> None:
    field = FieldValue(name="extent", value=20, probability=0.97)
    plain, structured = (trusted(captioner, folder, case_of(folder), fields=fields) for fields in ((), (field,)))
    assert all(one.confidence is not None for one in plain.sentences)
    assert {(one.confidence, one.assessable) for one in structured.sentences} == {(None, True)}
    assert [gate.passed for gate in structured.gates] == [gate.passed for gate in plain.gates] == [True, True]


def test_numbers_are_marked_but_for_those_of_a_confident_field(
    calibrated: object, captioner: SlideCaptioner, folder: Path
) -> None:
    case = case_of(folder)
    text = "In 20% of it. A mass of 3 cm."
    drawn = with_consensus(draw_texts(captioner, [case], 0, 1, 0)[0])
    sure = FieldValue(name="extent", value=20, probability=0.97)
    unsure = FieldValue(name="size_cm", value=3, probability=0.4)
    report = with_trust(
        Report(case_id="v0", text=text, provenance=Provenance(created="now"), fields=(sure, unsure)),
        captioner,
        case,
        drawn,
        load_gates(folder / "model"),
    )
    marked = [text[start:end] for one in report.sentences for start, end in one.unverified_numbers]
    assert marked == ["3 cm"]
    assert [one.text for one in report.sentences] == ["In 20% of it.", "A mass of 3 cm."]
    assert all(one.logprob < 0 for one in report.sentences)


def test_gates_of_other_weights_and_damaged_files_are_refused(calibrated: object, folder: Path, tmp_path: Path) -> None:
    copy_model(folder, tmp_path, with_gates=True)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    changed = {name: tensor + 1 if place == 0 else tensor for place, (name, tensor) in enumerate(weights.items())}
    safetensors.torch.save_file(changed, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"was calibrated for weights .*calibrate the model again"):
        load_gates(tmp_path)
    (tmp_path / "trust.safetensors").write_bytes((folder / "model" / "trust.safetensors").read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"cannot read .*trust\.safetensors"):
        load_gates(tmp_path)
    (tmp_path / "trust.safetensors").unlink()
    assert load_gates(tmp_path) is None


def test_what_cannot_be_calibrated_is_said_and_changes_no_file(run: Run, folder: Path, tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, f"b{number}") for number in range(3)]
    few = [Case(f"b{number}", (), (path,), ("x",), "train") for number, path in enumerate(bags)]
    model = tmp_path / "model"
    copy_model(folder, model)
    val = Case("v", (), (bag_of(tmp_path, "v"),), ("Adenocarcinoma.",), "val")
    for name, cases, words in (
        ("none", [val], "no case of split 'train' with bags"),
        ("noval", few, "no case of split 'val' with a report"),
        ("few", [*few, val], "3 training cases are too few"),
    ):
        write_manifest(tmp_path / f"{name}.jsonl", cases)
        code, _, said = run("calibrate", tmp_path / f"{name}.jsonl", "--model", model)
        assert (code, words in said) == (1, True), said
    code, _, said = run("calibrate", tmp_path / "few.jsonl", "--model", model, "--split", "train")
    assert code == 2
    assert not (model / "trust.safetensors").exists()


def test_without_training_cases_those_of_the_models_gates_are_kept(
    calibrated: object, run: Run, folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    copy_model(folder, model, with_gates=True)
    here = [case for case in read_manifest(folder / "cases.jsonl") if case.case_id in ("v0", "v1", "v2")]
    write_manifest(tmp_path / "here.jsonl", here)
    code, _, said = run("calibrate", tmp_path / "here.jsonl", "--model", model)
    assert code == 0
    assert "the 12 that the model's gates hold are kept" in said
    before, after = load_gates(folder / "model"), load_gates(model)
    assert before is not None
    assert after is not None
    assert (after.training.mean == before.training.mean).all()
    assert torch.equal(after.others, before.others)
    assert (after.facts["training_cases"], after.facts["calibration_cases"]) == (12, 3)
    # On the same case, the same text and so the same value: only the thresholds are others.
    captioner = SlideCaptioner.from_pretrained(model)
    drawn = draw_texts(captioner, [case_of(folder)], 0, 4, 0)[0]
    plain = Report(case_id="v0", text=drawn[0].text, provenance=Provenance(created="now"))
    values = [
        [gate.value for gate in with_trust(plain, captioner, case_of(folder), with_consensus(drawn), gates).gates]
        for gates in (before, after)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_a_zeroed_case_owes_nothing_to_its_image(calibrated: object, captioner: SlideCaptioner, folder: Path) -> None:
    zeros = in_memory("zeros", torch.zeros(64, 12))
    report = trusted(captioner, folder, zeros)
    assert report.gates[0].value <= 1e-3


OWN_SCHEMA = {
    "type": "object",
    "properties": {"grade": {"type": "integer", "minimum": 1, "maximum": 90}, "side": {"enum": ["left", "right"]}},
    "required": ["grade", "side"],
}


@pytest.fixture(scope="module")
def with_fields(folder: Path, captioner: SlideCaptioner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the model beside a schema and a manifest in which all grades but one are what the model fills in."""
    here = tmp_path_factory.mktemp("fields")
    copy_model(folder, here / "model")
    (here / "own.json").write_text(json.dumps(OWN_SCHEMA))
    (here / "own.jinja").write_text("Grade {{ grade if grade is not none else 'unknown' }}.")
    cases = []
    for case in read_manifest(folder / "cases.jsonl"):
        truth = None
        if case.split == "val":
            filled = fill(captioner, [case_of(folder, case.case_id)], load_schema(here / "own.json"))[0]
            assert filled.values["grade"] is not None
            truth = {"fields": {"grade": 0 if case.case_id == "v5" else filled.values["grade"]}}
        cases.append(replace(case, truth=truth))
    write_manifest(here / "cases.jsonl", cases)
    return here


def test_fields_get_the_confidence_that_their_schema_was_calibrated_to(
    run: Run, with_fields: Path, folder: Path, tmp_path: Path
) -> None:
    model, schema = with_fields / "model", with_fields / "own.json"
    asked = ("calibrate", with_fields / "cases.jsonl", "--model", model, "--fields", schema)
    code, shown, errors = run(*asked, "--json")
    assert code == 0, errors
    (found,) = json.loads(shown)["fields"].values()
    assert (found["fields"], found["values"], found["right_values"]) == (["grade"], 6, 5)
    gates = load_gates(model)
    assert gates is not None
    (known,) = gates.fields.values()
    # The template's words are not this tiny model's, so that they would depend on no image.
    always_open = replace(gates.thresholds["image dependence"], shut=-1e9)
    gates = replace(gates, thresholds={**gates.thresholds, "image dependence": always_open})
    write_gates(model, gates)

    def report(*how: object, bag: str = "v0") -> Report:
        options = ("--model", model, "--out", tmp_path, "--fields", schema, "--no-evidence", "--no-pages")
        code, _, errors = run("report", folder / f"{bag}.h5", *options, *how)
        assert code == 0, errors
        return read_json(tmp_path / f"{bag}.json")

    told = report()
    grade, side = told.fields
    assert grade.confidence == pytest.approx(known.of("grade", grade.probability))
    assert side.confidence is None  # nothing was said of it that could be judged
    assert told.text == f"Grade {grade.value}."
    # Without the gates, and for slides unlike those of the calibration, no confidence is told.
    assert report("--no-trust").fields[0].confidence is None
    bag_of(folder, "further", 40.0)
    far = report(bag="further")
    assert not far.supported
    assert far.fields[0].confidence is None

    # A value below the threshold stays in its field and out of the text.
    surest = replace(known, confidence=replace(known.confidence, threshold=1.0))
    write_gates(model, replace(gates, fields={key: surest for key in gates.fields}))
    withheld = report()
    assert (withheld.text, withheld.fields[0].value, withheld.fields[0].assessable) == (
        "Grade unknown.",
        grade.value,
        False,
    )
    assert withheld.settings_hash != told.settings_hash
    write_gates(model, gates)


def test_fields_of_which_nothing_is_known_end_the_calibration_and_keep_the_file(
    run: Run, with_fields: Path, folder: Path
) -> None:
    model = with_fields / "model"
    before = (model / "trust.safetensors").read_bytes()
    code, _, said = run("calibrate", folder / "cases.jsonl", "--model", model, "--fields", with_fields / "own.json")
    assert code == 1
    assert 'give true values as "fields"' in said
    assert (model / "trust.safetensors").read_bytes() == before
