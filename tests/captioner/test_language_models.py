"""The embedded language model comes out of its wheel, once, and is the file that it should be."""

from pathlib import Path

import pytest

from wsi_mivpg.captioner.language_models import EMBEDDED, embedded_folder, find_embedded_file, load_language_model
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
    monkeypatch.setattr("wsi_mivpg.captioner.language_models.find_embedded_file", lambda: damaged)
    with pytest.raises(ModelError, match=r"damaged\.gguf has sha256"):
        embedded_folder()
    assert not (tmp_path / "cache").exists()


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="nowhere/model"):
        load_language_model("nowhere/model")
