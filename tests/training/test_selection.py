"""The model is the step that writes best on validation cases, and what it wrote can be read."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_train import assert_same_weights, stop_at_forward, weights
from tests.training.tiny_cohort import tiny_recipe, write_cases
from wsi_mivpg.training import train
from wsi_mivpg.training.selection import WrittenReports, field_agreement, scores


def _log(out: Path) -> list[dict[str, float]]:
    lines = (out / "training_log.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "eval_loss" in entry]


def test_the_best_evaluated_step_becomes_the_model_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = iter([0.2, 0.9, 0.5, 0.1])
    monkeypatch.setattr(WrittenReports, "__call__", lambda self, captioner, step: {"cider": next(planned)})
    recipe = tiny_recipe(tmp_path / "base", selection={"metric": "cider", "every": 2}, optim={"save_every": 3})
    result = train(recipe, write_cases(tmp_path, val=2), tmp_path / "out")
    assert (result.steps, result.best_step) == (8, 4)
    kept = sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert kept == ["checkpoint-4", "checkpoint-8"]
    best, last = (load_file(tmp_path / "out" / "checkpoints" / name / "model.safetensors") for name in kept)
    assert_same_weights(weights(result), best, 0)
    assert any(not torch.equal(best[name], last[name]) for name in best)


def test_training_stops_when_nothing_gets_better_also_across_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WrittenReports, "__call__", lambda self, captioner, step: {"rouge_l": 1 / step})
    recipe = tiny_recipe(
        tmp_path / "base",
        selection={"metric": "rouge_l", "every": 1, "patience": 3},
        optim={"steps": 50, "save_every": 50},
    )
    cases = write_cases(tmp_path, val=1)
    result = train(recipe, cases, tmp_path / "one")
    assert (result.steps, result.best_step) == (4, 1)
    with monkeypatch.context() as patched:
        stop_at_forward(patched, 6)  # a step is two passes, one of them of the evaluation: this is step 3
        with pytest.raises(KeyboardInterrupt):
            train(recipe, cases, tmp_path / "two")
    resumed = train(recipe, cases, tmp_path / "two")
    assert (resumed.steps, resumed.best_step) == (4, 1)
    assert_same_weights(weights(result), weights(resumed), 1e-6)


@pytest.mark.parametrize("metric", ["loss", "cider", "rouge_l", "bleu_4", "fields"])
def test_every_metric_can_choose_and_what_was_written_is_kept(tmp_path: Path, metric: str) -> None:
    said: list[str] = []
    recipe = tiny_recipe(tmp_path / "base", selection={"metric": metric, "every": 4, "max_cases": 3})
    result = train(recipe, write_cases(tmp_path, val=4), tmp_path / "out", note=said.append)
    evaluations = _log(tmp_path / "out")
    assert [entry["step"] for entry in evaluations] == [4, 8]
    values = {entry["step"]: entry[f"eval_{metric}"] for entry in evaluations}
    assert values[result.best_step] == (min if metric == "loss" else max)(values.values())
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert Counter(one["step"] for one in samples) == dict.fromkeys((4, 8), 2 if metric == "loss" else 3)
    assert {"text", "reference", "flags"} <= samples[0].keys()
    assert len(said) == 4  # two samples at each evaluation
    assert all("reference: " in text for text in said)


def test_the_validation_loss_is_the_mean_over_all_report_tokens(tmp_path: Path) -> None:
    cases = write_cases(tmp_path, val=4)
    recipes = [
        tiny_recipe(tmp_path / "base", selection={"metric": "loss", "every": 8}, optim={"batch_size": size})
        for size in (4, 3)
    ]
    evaluated = []
    for recipe in recipes:
        out = tmp_path / str(recipe.optim.batch_size)
        settings = recipe.optim.model_copy(update={"lr_adapter": 1e-30, "lr_language": 1e-30})
        train(recipe.model_copy(update={"optim": settings}), cases, out)
        evaluated.append(_log(out)[0]["eval_loss"])
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-5)  # whatever the batches, the last of which is short


def test_a_perfect_text_has_perfect_scores() -> None:
    texts = {
        "a": "Lung, biopsy: adenocarcinoma in 40% of the tissue, two foci.",
        "b": "Lung, biopsy: squamous cell carcinoma in 10% of it, one focus.",
    }
    perfect = scores(texts, {name: (text,) for name, text in texts.items()})
    assert (perfect["rouge_l"], perfect["fields"], perfect["distinct"]) == (1.0, 1.0, 1.0)
    assert perfect["bleu_4"] == pytest.approx(1.0)
    assert perfect["cider"] == pytest.approx(10.0)
    same = scores(dict.fromkeys(texts, texts["a"]), {name: (text,) for name, text in texts.items()})
    assert same["distinct"] == 0.5
    assert same["fields"] < 1


def test_facts_agree_within_ten_points_and_facts_nobody_states_do_not_count() -> None:
    reference = {"a": ("Lung, biopsy: adenocarcinoma in 40% of the tissue.",)}
    assert field_agreement({"a": "Lung, biopsy: adenocarcinoma in 48% of the tissue."}, reference) == 1
    far = field_agreement({"a": "Lung, biopsy: adenocarcinoma in 51% of the tissue."}, reference)
    assert 0 < far < 1
    assert field_agreement({"a": "anything"}, {"a": ("?",)}) == 0
