"""A whole published BLIP-2 as a start: Q-Former, projection and language model of one checkpoint.

The language model's activation, its head and the token that ends a text are the checkpoint's own, not those of the
language model that it was made from.
"""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from wsi_mivpg.captioner.configuration import HIERARCHICAL, CaptionerConfig
from wsi_mivpg.captioner.language_models import find_language_model, is_blip2, load_language_model
from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig
from wsi_mivpg.mivpg.pretrained import load_blip2, published_settings

if TYPE_CHECKING:
    from wsi_mivpg.captioner.model import SlideCaptioner

Captioner = TypeVar("Captioner", bound="SlideCaptioner")
_FROM_QFORMER = ("mivpg", "qformer", HIERARCHICAL)


def start_from_blip2(
    make: type[Captioner],
    path_or_id: str,
    config: CaptionerConfig,
    kv: Literal["pretrained", "fresh"] = "pretrained",
    revision: str | None = None,
) -> Captioner:
    """Build a captioner that writes what BLIP-2 writes, for the same image features, until it is trained.

    Args:
        make: the captioner's class.
        path_or_id: a folder as Hugging Face writes a BLIP-2 or InstructBLIP, or its id on the hub.
        config: what else the captioner is. What its `mivpg` leaves out is the checkpoint's, with an input projection
            where its `feature_dim` is not the width that the Q-Former reads; its `language_model` becomes this
            checkpoint's.
        kv: "fresh" for features of another width; see `load_blip2`.
        revision: commit, branch or tag on the hub.

    Raises:
        ModelError: the checkpoint is not found, damaged, of another kind, or does not fit `config`.
    """
    if config.adapter not in _FROM_QFORMER:
        raise ModelError(f"the adapter {config.adapter!r} has no Q-Former to start from a BLIP-2; use 'mivpg'")
    base = find_language_model(path_or_id, revision)
    if not is_blip2(base.folder):
        raise ModelError(
            f"{base.folder} holds no BLIP-2 as Hugging Face writes it; for a Q-Former alone, as LAVIS writes it, use "
            "MivpgModel.from_blip2"
        )
    given = MivpgConfig(**_completed(base.folder, config))
    parts = load_blip2(base.folder, config=given, kv=kv)
    if parts.language_projection is None:
        raise ModelError(f"{base.folder} holds no language_projection; give a BLIP-2 with a language model")
    config.mivpg = _settings(parts.model.config)
    language_model, tokenizer = load_language_model(base, in_4_bits=config.trains == "lora-4bit")
    end: Any = language_model.config.eos_token_id
    if end is not None and end != tokenizer.eos_token_id:
        config.generation.setdefault("eos_token_id", end)  # BLIP-2 with OPT ends its captions with a new line
    config.language_model, config.language_model_revision = path_or_id, base.revision
    config.language_model_sha256 = base.sha256()
    captioner = make(config, language_model, tokenizer)
    adapter: Any = captioner.mivpg.mivpg if config.adapter == HIERARCHICAL else captioner.mivpg
    loaded = parts.model.state_dict()
    adapter.load_state_dict({name: loaded[name] for name in adapter.state_dict()})
    with torch.no_grad():
        captioner.language_projection.weight.copy_(parts.language_projection[0])
        captioner.language_projection.bias.copy_(parts.language_projection[1])
    captioner.train(False)
    return captioner


def _completed(folder: Path, config: CaptionerConfig) -> dict[str, Any]:
    """Return the adapter's settings: those of `config`, and the checkpoint's for what it leaves out."""
    settings = published_settings(folder) | config.mivpg
    width = settings.get("encoder_hidden_size", MivpgConfig().encoder_hidden_size)
    if "input_dim" not in settings and config.feature_dim not in (None, width):
        settings["input_dim"] = config.feature_dim
    return settings


def _settings(config: MivpgConfig) -> dict[str, Any]:
    """Return the arguments that make this configuration again."""
    own = inspect.signature(MivpgConfig.__init__).parameters.keys() - {"self", "kwargs"}
    return {name: getattr(config, name) for name in sorted(own)}
