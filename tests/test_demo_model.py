"""The shipped model reads slides that it has never seen, through the command that users run."""

import json
from pathlib import Path

import pytest

from wsi_mivpg.captioner.saving import find_model, read_config
from wsi_mivpg.cli.main import main
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.evaluation import extract_fields


def test_it_names_the_finding_of_unseen_slides_and_nothing_is_lost_beside_a_corrupt_one(
    unseen_biopsies: list[Case], tmp_path: Path
) -> None:
    slides = [case.slide_paths[0] for case in unseen_biopsies]
    corrupt = tmp_path / "corrupt.svs"
    corrupt.write_bytes(b"II*\0 this is no slide")
    with pytest.raises(SystemExit) as left:
        main(["report", *map(str, slides), str(corrupt), "--out", str(tmp_path), "--no-evidence"])
    assert left.value.code == 3
    assert "corrupt.svs" in (tmp_path / "failures.csv").read_text()

    records = [json.loads(line) for line in (tmp_path / "reports.jsonl").read_text().splitlines()]
    texts = {record["case_id"]: record["text"] for record in records}
    truths = {case.case_id: case.truth or {} for case in unseen_biopsies}
    assert texts.keys() == truths.keys()
    assert len({truth["finding"] for truth in truths.values()}) == 5
    for case_id, truth in truths.items():
        assert extract_fields(texts[case_id]).finding == truth["finding"], texts[case_id]

    for record in records:
        page = (tmp_path / f"{record['case_id']}.html").read_text()
        assert "not a medical device" in page
        assert "not a medical device" in record["disclaimer"]
        assert record["model"]["demonstration"]
    assert "corrupt.svs" in (tmp_path / "index.html").read_text()


def test_python_finds_the_shipped_model_by_the_name_it_has_on_the_command_line() -> None:
    assert read_config(find_model("demo")).demonstration


def test_the_shipped_weights_are_small_and_hold_only_what_was_trained() -> None:
    import safetensors

    import wsi_mivpg

    file = Path(wsi_mivpg.__file__).parent / "demo_model" / "model.safetensors"
    assert file.stat().st_size <= 25e6
    with safetensors.safe_open(file, "pt") as tensors:
        names = list(tensors.keys())
    assert all(name.startswith(("mivpg.", "language_projection.")) or "lora_" in name for name in names)
