"""Training makes a model, leaves the base alone, and comes out the same when it was interrupted."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.provenance import PROVENANCE
from tests.training.tiny_cohort import tiny_recipe, write_case, write_cases
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.captioner.inputs import read_case
from wsi_mivpg.errors import CohortError, OutputError, RecipeError
from wsi_mivpg.training import TrainResult, load_recipe, train
from wsi_mivpg.training.arguments import training_arguments
from wsi_mivpg.training.train import captioner_config, new_captioner
from wsi_mivpg.training.trainer import CaptionTrainer


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_file(result.model_dir / "model.safetensors")


def assert_same_weights(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=tolerance, rtol=10 * tolerance, msg=name)


def stop_at_forward(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the captioner's `number`-th forward pass be interrupted, as Ctrl-C does."""
    forward, calls = SlideCaptioner.forward, 0

    def stopping(self: SlideCaptioner, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(SlideCaptioner, "forward", stopping)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": {"max_instances": 4}, "optim": {"instance_dropout": 0.5, "gradient_accumulation": 2}},
        {"optim": {"steps": None, "epochs": 4, "schedule": "linear", "warmup_steps": None, "warmup_ratio": 0.2}},
    ],
    ids=["plain", "drawn and accumulated", "by epochs"],
)
def test_an_interrupted_training_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    cases, recipe = write_cases(tmp_path), tiny_recipe(tmp_path / "base", **changes)
    undisturbed = train(recipe, cases, tmp_path / "one")
    with monkeypatch.context() as patched:
        stop_at_forward(patched, 6 * recipe.optim.gradient_accumulation + 1)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, cases, tmp_path / "two")
    assert not (tmp_path / "two" / "model").exists()
    resumed = train(recipe, cases, tmp_path / "two")
    assert_same_weights(weights(undisturbed), weights(resumed))
    assert resumed.steps == undisturbed.steps == 8
    steps = [json.loads(line)["step"] for line in (tmp_path / "two" / "training_log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)  # what is done twice is logged once

    # Asked again, a finished training leaves its model as it is.
    again = train(recipe, cases, tmp_path / "two")
    assert weights(again).keys() == weights(resumed).keys()
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(again).items())
    with pytest.raises(OutputError, match="another recipe"):
        train(recipe.model_copy(update={"seed": 4}), cases, tmp_path / "two")
    with pytest.raises(OutputError, match="other cases"):
        train(recipe, cases[1:], tmp_path / "two")


def test_a_fresh_start_forgets_what_was_there(tmp_path: Path) -> None:
    cases, recipe = write_cases(tmp_path), tiny_recipe(tmp_path / "base")
    train(recipe.model_copy(update={"seed": 4}), cases, tmp_path / "out")
    anew = train(recipe, cases, tmp_path / "out", resume=False)
    assert_same_weights(weights(anew), weights(train(recipe, cases, tmp_path / "other")), 1e-7)


def test_another_training_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "bags")
    first, second = (tiny_recipe(tmp_path / "base", optim={"steps": steps, "save_every": 1}) for steps in (1, 2))
    train(first, cases, tmp_path / "out")
    with pytest.raises(OutputError, match="another recipe"):
        train(second, cases, tmp_path / "out")
    replaced = train(second, cases, tmp_path / "out", replace=True)
    assert replaced.steps == 2
    written = replaced.model_dir / "model.safetensors"
    before = written.stat().st_mtime_ns
    assert train(second, cases, tmp_path / "out", replace=True).steps == 2
    assert written.stat().st_mtime_ns == before, "what is finished is kept"


def test_the_model_is_there_even_if_the_run_was_killed_just_before_it(tmp_path: Path) -> None:
    cases, recipe = write_cases(tmp_path), tiny_recipe(tmp_path / "base")
    made = weights(train(recipe, cases, tmp_path / "out"))
    (tmp_path / "out" / "model").rename(tmp_path / "gone")
    assert_same_weights(made, weights(train(recipe, cases, tmp_path / "out")), 0)


def test_the_loss_falls_and_the_model_writes_what_it_learned(tmp_path: Path) -> None:
    cases = write_cases(tmp_path, train=8)
    recipe = tiny_recipe(
        tmp_path / "base", optim={"steps": 250, "batch_size": 4, "save_every": 250, "lr_language": 5e-3}
    )
    result = train(recipe, cases, tmp_path / "out")
    assert result.final_loss < 0.3
    captioner = SlideCaptioner.from_pretrained(result.model_dir)
    assert captioner.config.encoder == PROVENANCE.encoder
    unseen = [write_case(tmp_path, f"unseen{kind}", kind) for kind in range(4)]
    bags = [read_case(case.case_id, [FeatureBag.open(case.bag_paths[0])]) for case in unseen]
    written = [made.text for made in captioner.generate(bags)]
    assert sum(text == case.reports[0] for text, case in zip(written, unseen, strict=True)) >= 3, written


def test_accumulated_batches_weigh_tokens_as_one_batch_does(tmp_path: Path) -> None:
    # Reports of very different length: a mean of the batches' means would come out differently.
    cases = write_cases(tmp_path, train=8)
    changes = {"instance_dropout": 0.0, "steps": 4, "max_grad_norm": 1e9}
    plain = {"mivpg": {**tiny_recipe(tmp_path / "base").model.mivpg.model_dump(), "hidden_dropout_prob": 0.0}}
    whole = tiny_recipe(tmp_path / "base", optim={**changes, "batch_size": 4}, model=plain)
    parts = tiny_recipe(tmp_path / "base", optim={**changes, "batch_size": 1, "gradient_accumulation": 4}, model=plain)
    one, two = train(whole, cases, tmp_path / "whole"), train(parts, cases, tmp_path / "parts")
    assert_same_weights(weights(one), weights(two), 2e-5)
    assert one.final_loss == pytest.approx(two.final_loss, rel=1e-4)


@pytest.mark.parametrize("trains", ["adapter", "lora"])
def test_recomputed_layers_give_the_same_weights_and_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains: str
) -> None:
    cases = write_cases(tmp_path)
    kept = tiny_recipe(tmp_path / "base", model={"trains": trains}, optim={"steps": 2})
    again = tiny_recipe(tmp_path / "base", model={"trains": trains}, optim={"steps": 2, "gradient_checkpointing": True})
    from transformers.models.llama.modeling_llama import LlamaMLP

    passes = 0
    forward = LlamaMLP.forward

    def counting(self: LlamaMLP, x: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", counting)
    plain = weights(train(kept, cases, tmp_path / "kept"))
    once, passes = passes, 0
    assert_same_weights(plain, weights(train(again, cases, tmp_path / "again")), 1e-6)
    assert passes == 2 * once


def test_bf16_trains_close_to_fp32(tmp_path: Path) -> None:
    cases = write_cases(tmp_path)
    losses = [
        train(tiny_recipe(tmp_path / "base", precision=precision), cases, tmp_path / precision).final_loss
        for precision in ("fp32", "bf16")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_resolved_recipe_lies_beside_the_weights(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "base")
    result = train(recipe, write_cases(tmp_path), tmp_path / "out")
    assert load_recipe(result.model_dir / "recipe.yaml") == recipe
    assert not list(result.model_dir.glob("optimizer*"))


def test_progress_says_how_far_it_is_and_how_long_it_takes(tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    train(
        tiny_recipe(tmp_path / "base"),
        write_cases(tmp_path),
        tmp_path / "out",
        on_step=lambda done, total, words: said.append((done, total, words)),
    )
    assert [done for done, total, _ in said] == list(range(1, 9))
    assert all(total == 8 for _, total, _ in said)
    assert "loss" in said[-1][2]
    assert said[-1][2].endswith("0 s left")


def test_weights_that_fsdp_gathered_are_saved_as_others_are(tmp_path: Path) -> None:
    cases, recipe = write_cases(tmp_path), tiny_recipe(tmp_path / "base")
    captioner = new_captioner(recipe, FeatureBag.open(cases[0].bag_paths[0]))
    trainer = CaptionTrainer(model=captioner, args=training_arguments(recipe, tmp_path / "out", choose=False))
    trainer._save(str(tmp_path / "plain"))
    trainer._save(str(tmp_path / "gathered"), captioner.state_dict())
    plain, gathered = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "gathered"))
    assert_same_weights(plain, gathered, 0)
    captioner.load_trained(tmp_path / "gathered")


def test_cases_that_cannot_be_trained_on_are_named(tmp_path: Path) -> None:
    cases, recipe = write_cases(tmp_path), tiny_recipe(tmp_path / "base")
    with pytest.raises(CohortError, match="no case of 4 has split 'train'"):
        train(recipe, [dataclasses.replace(case, split="test") for case in cases], tmp_path / "out")
    with pytest.raises(CohortError, match="'train0' has no report"):
        train(recipe, [dataclasses.replace(cases[0], reports=())], tmp_path / "out")


def test_a_generation_setting_that_does_not_exist_is_named_with_the_nearest(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "base", model={"generation": {"num_beam": 2}})
    bag = FeatureBag.open(write_cases(tmp_path)[0].bag_paths[0])
    with pytest.raises(RecipeError, match=r"num_beam: GenerationConfig has no such setting; did you mean num_beams\?"):
        captioner_config(recipe, bag)
