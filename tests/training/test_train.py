"""Training makes a model, leaves the base alone, and comes out the same when it was interrupted."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.provenance import PROVENANCE
from tests.tiny_captioner import ADAPTER, REPORTS, tiny_base
from wsi_mivpg.bags import write_bag
from wsi_mivpg.captioner import SlideCaptioner, in_memory
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError, OutputError
from wsi_mivpg.training import Recipe, train


def _cases(folder: Path) -> list[Case]:
    rng = np.random.default_rng(0)
    cases = []
    for index, report in enumerate(REPORTS):
        count = 5 + index
        path = folder / f"case{index}.h5"
        provenance = dataclasses.replace(PROVENANCE, slide_id=f"case{index}")
        features = rng.standard_normal((count, 12)).astype(np.float16)
        write_bag(path, features, np.zeros((count, 2), np.int64), np.ones(count, np.float32), provenance)
        cases.append(Case(f"case{index}", (), (path,), (report,), "train"))
    return cases


def _recipe(base: Path, **optim: Any) -> Recipe:
    model, tokenizer = tiny_base()
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    adapter = {name: value for name, value in ADAPTER.items() if name != "input_dim"}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "seed": 3,
            "precision": "fp32",
            "model": {
                "mivpg": {**adapter, "hidden_dropout_prob": 0.1},
                "language_model": str(base),
                "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
                "prompt": "read the slide",
                "max_new_tokens": 16,
            },
            "optim": {"steps": 8, "batch_size": 2, "warmup_steps": 2, "save_every": 4, "lr_adapter": 5e-3, **optim},
        }
    )


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, recipe = _cases(tmp_path), _recipe(tmp_path / "base")
    undisturbed = train(recipe, cases, tmp_path / "one")
    forward, calls = SlideCaptioner.forward, 0

    def stopping(self: SlideCaptioner, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(SlideCaptioner, "forward", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, cases, tmp_path / "two")
    assert not (tmp_path / "two" / "model").exists()
    resumed = train(recipe, cases, tmp_path / "two")
    one, two = (load_file(result.model_dir / "model.safetensors") for result in (undisturbed, resumed))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=1e-6, rtol=1e-5, msg=name)

    # Asked again, a finished training leaves its model as it is.
    again = train(recipe, cases, tmp_path / "two")
    for name, tensor in load_file(again.model_dir / "model.safetensors").items():
        assert torch.equal(tensor, two[name]), name

    with pytest.raises(OutputError, match="another recipe"):
        train(recipe.model_copy(update={"seed": 4}), cases, tmp_path / "two")


def test_the_loss_falls_and_the_model_is_loadable(tmp_path: Path) -> None:
    cases = _cases(tmp_path)
    recipe = _recipe(tmp_path / "base", steps=250, save_every=250, lr_lora=5e-3)
    result = train(recipe, cases, tmp_path / "out")
    assert result.final_loss < 1.5
    captioner = SlideCaptioner.from_pretrained(result.model_dir)
    assert captioner.config.encoder == PROVENANCE.encoder
    assert captioner.generate([in_memory("a", torch.randn(4, 12))])[0].text


def test_cases_that_cannot_be_trained_on_are_named(tmp_path: Path) -> None:
    cases, recipe = _cases(tmp_path), _recipe(tmp_path / "base")
    with pytest.raises(CohortError, match="no case has split 'train'"):
        train(recipe, [dataclasses.replace(case, split="test") for case in cases], tmp_path / "out")
    with pytest.raises(CohortError, match="'case0' has no report"):
        train(recipe, [dataclasses.replace(cases[0], reports=())], tmp_path / "out")
