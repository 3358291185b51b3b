"""The card says what the model was trained on, how it went, and what it is not for, in figures of this training."""

import dataclasses
import json
from pathlib import Path

import yaml

from tests.training.tiny_cohort import tiny_recipe, write_case, write_cases
from wsi_mivpg.training import train


def test_the_card_states_data_losses_metrics_recipe_versions_and_limits(tmp_path: Path) -> None:
    cases = [*write_cases(tmp_path, train=5, val=2), write_case(tmp_path, "t", 0, "test")]
    cases[1] = dataclasses.replace(cases[1], patient_id=cases[0].patient)
    recipe = tiny_recipe(tmp_path / "base", selection={"metric": "rouge_l", "every": 4})
    result = train(recipe, cases, tmp_path / "out")
    card = (result.model_dir / "README.md").read_text()
    front, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(front)["library_name"] == "wsi-mivpg"
    assert "| train | 5 | 4 | 5 | 4 |" in body  # five cases of four patients with four different reports
    assert "| val | 2 | 2 | 2 | 2 |" in body
    assert "| test (not used) | 1 | | | |" in body
    assert "No patient, slide or bag is in more than one split" in body
    assert f"the weights of step {result.best_step}, the best by rouge_l" in body
    entries = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").read_text().splitlines()]
    best = next(entry for entry in entries if entry["step"] == result.best_step and "eval_rouge_l" in entry)
    assert f"{best['eval_rouge_l']:.4f}" in body
    assert f"| 1 | {entries[0]['loss']:.4f} |" in body
    assert "not a medical device" in body
    assert "wsi-mivpg " in body
    assert yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])["name"] == "tiny"
    assert "invented data" not in body


def test_a_leak_that_was_allowed_and_invented_data_are_on_the_card(tmp_path: Path) -> None:
    cases = write_cases(tmp_path, train=4, val=1)
    cases[-1] = dataclasses.replace(cases[-1], patient_id="train0")
    recipe = tiny_recipe(tmp_path / "base", data={"on_leak": "warn"}, model={"demonstration": True})
    said: list[str] = []
    card = (train(recipe, cases, tmp_path / "out", note=said.append).model_dir / "README.md").read_text()
    assert "Splits leak into each other" in card
    assert "train0" in card
    assert any(text.startswith("warning: ") for text in said)
    assert "invented data" in card
