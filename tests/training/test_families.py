"""The same recipe trains language models of both families, in every way that the paper and its users train them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Blip2Config, Blip2ForConditionalGeneration

from tests.mivpg.blip2_checkpoints import PARTS, SIZES
from tests.tiny_captioner import FAMILIES, tiny_tokenizer, write_tiny_language_model
from tests.training.tiny_cohort import tiny_recipe, write_cases
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner, read_case
from wsi_mivpg.training import load_recipe, train

ALL_LINEAR = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": "all-linear"}


@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("flan-t5", {"trains": "adapter", "prompt_template": None}),  # the paper's main model
        ("opt", {"trains": "adapter", "prompt_template": None}),  # its appendix
        ("qwen3", {"trains": "lora", "lora": ALL_LINEAR}),
        ("flan-t5", {"trains": "lora", "lora": ALL_LINEAR, "prompt_template": None}),
        ("llama", {"trains": "full"}),
        ("llama", {"trains": "adapter", "adapter": "hierarchical"}),
        ("llama", {"trains": "adapter", "adapter": "gated_abmil"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_it_learns_saves_what_it_trained_and_loads(tmp_path: Path, family: str, model: dict[str, Any]) -> None:
    write_tiny_language_model(tmp_path / "base", family)
    optim = {"steps": 30, "batch_size": 4, "lr_adapter": 5e-3, "lr_language": 5e-3, "save_every": 30}
    recipe = tiny_recipe(tmp_path / "base", model=model, optim=optim, selection={"metric": "loss", "every": 15})
    cases = write_cases(tmp_path, train=8, val=1)
    result = train(recipe, cases, tmp_path / "out")
    first, *_ = (tmp_path / "out" / "training_log.jsonl").read_text().splitlines()
    assert result.final_loss < json.loads(first)["loss"]
    trained = load_file(result.model_dir / "model.safetensors")
    of_the_base = [name for name in trained if name.startswith("language_model.") and "lora_" not in name]
    assert bool(of_the_base) == (model["trains"] == "full")
    captioner = SlideCaptioner.from_pretrained(result.model_dir)
    (bag,) = cases[0].bag_paths
    (made,) = captioner.generate([read_case("a", [FeatureBag.open(bag)])])
    assert made.case_id == "a"


@pytest.mark.parametrize("family", ["opt", "flan-t5"])
def test_training_starts_from_a_published_blip2(tmp_path: Path, family: str) -> None:
    torch.manual_seed(0)
    architecture = FAMILIES[family][1].to_dict()
    blip2 = Blip2ForConditionalGeneration(Blip2Config(**{**PARTS, "text_config": architecture}))
    blip2.save_pretrained(tmp_path / "blip2")
    tiny_tokenizer(family).save_pretrained(tmp_path / "blip2")
    stated = {name: SIZES[name] for name in SIZES if name != "layer_norm_eps"} | {"layer_norm_eps": 1e-9}
    recipe = tiny_recipe(
        tmp_path / "base",
        model={"from_blip2": str(tmp_path / "blip2"), "mivpg": stated, "trains": "adapter", "prompt_template": None},
        optim={"steps": 2, "lr_adapter": 1e-30, "lr_language": 1e-30, "weight_decay": 0.0},
    )
    result = train(recipe, write_cases(tmp_path), tmp_path / "out")
    trained = load_file(result.model_dir / "model.safetensors")
    theirs = blip2.state_dict()
    torch.testing.assert_close(trained["language_projection.weight"], theirs["language_projection.weight"])
    torch.testing.assert_close(trained["mivpg.query_tokens"], theirs["query_tokens"])
    assert load_recipe(result.model_dir / "recipe.yaml").model_dump() == recipe.model_dump()
    assert SlideCaptioner.from_pretrained(result.model_dir).config.language_model == str(tmp_path / "blip2")
