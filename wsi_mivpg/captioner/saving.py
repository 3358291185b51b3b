"""A report model's folder: config.json and the trained tensors; the base model is named there, not copied."""

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wsi_mivpg.atomic import replaced, write_text
from wsi_mivpg.captioner.configuration import CaptionerConfig
from wsi_mivpg.captioner.trainable import merged_state
from wsi_mivpg.errors import ModelError, OutputError

if TYPE_CHECKING:
    from wsi_mivpg.captioner.model import SlideCaptioner

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TRUST_FILE = "trust.safetensors"
"""What `wsi-mivpg calibrate` found, where it was run."""
DEMO = "demo"
"""Name of the demonstration model that the package ships, on the command line too."""


def find_model(path_or_id: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a report model: "demo" (the package's own), a local one, or a copy from the hub.

    Raises:
        ModelError: it is neither.
    """
    if str(path_or_id) == DEMO:
        return Path(str(resources.files("wsi_mivpg"))) / "demo_model"
    if (folder := Path(path_or_id).expanduser()).is_dir():
        return folder
    try:
        files = [CONFIG_FILE, WEIGHTS_FILE, TRUST_FILE]
        return Path(snapshot_download(str(path_or_id), revision=revision, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"cannot read the report model {str(path_or_id)!r}: {reason}; give a folder that `wsi-mivpg train` wrote, "
            "or an id on the Hugging Face hub"
        ) from error


def read_config(folder: Path) -> CaptionerConfig:
    """Read a model folder's configuration without loading weights.

    Raises:
        ModelError: the file is missing or is not a report model's.
    """
    file = folder / CONFIG_FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}; give a folder that `wsi-mivpg train` wrote") from error
    if not isinstance(settings, dict) or settings.get("model_type") != CaptionerConfig.model_type:
        raise ModelError(f"{file} is not the configuration of a report model; give a folder that `train` wrote")
    return CaptionerConfig(**settings)


def read_trained(captioner: "SlideCaptioner", folder: Path) -> None:
    """Load the trained tensors of a folder; the set of keys and every shape must match exactly.

    Raises:
        ModelError: the file is missing or damaged, or tensors are missing, unexpected, or of another shape.
    """
    file = folder / WEIGHTS_FILE
    try:
        loaded = safetensors.torch.load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {file}: {error}; copy the model folder again") from error
    own = captioner.trained_state()
    missing, unexpected = sorted(own.keys() - loaded.keys()), sorted(loaded.keys() - own.keys())
    wrong = sorted(key for key in own.keys() & loaded.keys() if own[key].shape != loaded[key].shape)
    if missing or unexpected or wrong:
        raise ModelError(
            f"{file} does not fit its {CONFIG_FILE}: missing {missing}, unexpected {unexpected}, "
            f"other shape {wrong}; copy both files from the same training"
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(loaded[key])


def write_model(captioner: "SlideCaptioner", folder: Path, dtype: torch.dtype) -> None:
    """Write the trained tensors as `dtype` and the configuration, each file whole or not at all.

    Raises:
        OutputError: the folder cannot be written, or its disk is full.
    """
    tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in captioner.trained_state().items()}
    try:
        with replaced(folder / WEIGHTS_FILE) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
        write_text(folder / CONFIG_FILE, captioner.config.to_json_string())
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the model to {folder}: {error}; what was there before is intact") from error


def export_language_model(captioner: "SlideCaptioner", folder: Path) -> None:
    """Write the language model as any program reads one, with what it learned (LoRA) added into its weights.

    Raises:
        ModelError: the base is held in 4 bits.
    """
    model: PreTrainedModel = captioner.language_model
    tokenizer: PreTrainedTokenizerBase = captioner.tokenizer
    with torch.device("meta"):
        plain = type(model)(model.config)
    state = merged_state(model)
    plain.load_state_dict({name: state[name] for name in plain.state_dict()}, assign=True)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
