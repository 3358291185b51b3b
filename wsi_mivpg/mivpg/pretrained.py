"""Start the adapter from a published Q-Former: BLIP-2 or InstructBLIP, as Hugging Face or LAVIS store them.

Every tensor is accounted for by name and shape: what the checkpoint lacks must be this adapter's own, and nothing is
left over. Finding and reading the files is `checkpoint`'s job.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import Blip2QFormerConfig

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.checkpoint import CONFIG_FILE, LAYER, State, find_checkpoint, first, read_state
from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.model import MivpgModel

_PROJECTION = ("language_projection.weight", "language_projection.bias")
_NEW = re.compile(rf"input_projection\..+|{LAYER}crossattention\.(csa|ppeg)\..+")
_KEY_OR_VALUE = re.compile(LAYER + r"crossattention\.attention\.(key|value)\.weight")

_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "cross_attention_frequency",
    "layer_norm_eps",
)
_STATED = (*_SIZES, "encoder_hidden_size", "hidden_dropout_prob")
_LAVIS_HEAD_SIZE = 64


@dataclass(frozen=True)
class Blip2Parts:
    """What a BLIP-2 checkpoint gives besides its vision tower and its language model.

    Attributes:
        model: the adapter, float32, on the CPU, in evaluation mode.
        language_projection: float32 weight (width of the language model, hidden_size) and bias (width,);
            ``None`` for checkpoints of BLIP-2's first stage, which know no language model.
    """

    model: MivpgModel
    language_projection: tuple[Tensor, Tensor] | None


def load_blip2(
    path_or_id: str | Path,
    *,
    config: MivpgConfig | None = None,
    kv: Literal["pretrained", "fresh"] = "pretrained",
    revision: str | None = None,
) -> Blip2Parts:
    """Load the Q-Former of BLIP-2 or InstructBLIP into a `MivpgModel`.

    Only the input projection, CSA and PPEG start untrained. Since CSA and PPEG start at zero, the model then returns
    what the checkpoint's Q-Former returns for its queries alone; InstructBLIP's reading of an instruction is left out.

    Args:
        path_or_id: a folder as Hugging Face writes it; a file (.safetensors, its index, .bin, or a .pth of LAVIS);
            or an id on the Hugging Face hub, of which only the files with the Q-Former are downloaded.
        config: the adapter. ``None``: as the checkpoint's config.json states, or, without one, as the tensors' shapes
            show, with BERT's heads of 64 as in LAVIS; but attention weights stay without dropout, which long bags
            cannot be trained with. For features of another width than `encoder_hidden_size`, give one with `input_dim`.
        kv: ``"fresh"`` starts the key and value weights of all cross-attentions anew (their biases stay), which
            allows any `encoder_hidden_size`.
        revision: commit, tag or branch on the hub.

    Raises:
        ModelError: nothing is found, a file is damaged or a pickle, its sizes are not those of `config`, or a tensor
            is missing, unexpected, or of another shape.
    """
    if kv not in ("pretrained", "fresh"):
        raise ModelError(f"kv is {kv!r}; use 'pretrained' or 'fresh'")
    checkpoint = find_checkpoint(str(path_or_id), revision)
    state = read_state(checkpoint)
    stated = _stated_settings(checkpoint.config)
    if config is None:
        config = MivpgConfig(**(stated or _settings_from_shapes(checkpoint.source, state)))
    elif stated is not None:
        _refuse_other_sizes(checkpoint.source, config, stated)
    projection = {name: state.pop(name) for name in _PROJECTION if name in state}
    model = _filled(checkpoint.source, state, config, kv)
    return Blip2Parts(model, _language_projection(checkpoint.source, projection, config.hidden_size))


def published_settings(path_or_id: str | Path, revision: str | None = None) -> dict[str, Any]:
    """Return the arguments of `MivpgConfig` that a checkpoint's config.json states; none where it states none.

    Raises:
        ModelError: nothing is found, or its config.json is damaged or of another kind.
    """
    return _stated_settings(find_checkpoint(str(path_or_id), revision).config) or {}


def _stated_settings(file: Path | None) -> dict[str, Any] | None:
    """Return the arguments of `MivpgConfig` that config.json states, or None where it is not a BLIP-2's."""
    if file is None:
        return None
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}; download it again") from error
    qformer = stated.get("qformer_config") if isinstance(stated, dict) else None
    if not isinstance(qformer, dict):
        return None
    if (activation := qformer.get("hidden_act", "gelu")) != "gelu":
        raise ModelError(f"{file}: the Q-Former's hidden_act is {activation!r}; only 'gelu', BLIP-2's, can be loaded")
    encoder = stated.get("vision_config") or {}  # its width goes before the Q-Former's own, as in transformers
    width = {"encoder_hidden_size": encoder["hidden_size"]} if "hidden_size" in encoder else {}
    settings = _with_defaults({**qformer, **width, "num_query_tokens": stated.get("num_query_tokens", 32)})
    if wrong := [f"{name} {value!r}" for name, value in settings.items() if not isinstance(value, int | float)]:
        raise ModelError(f"{file}: {first(wrong)}: not a number; download it again")
    return settings


def _with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Keep the Q-Former's settings of `given`; files leave out those that equal transformers' defaults."""
    defaults = Blip2QFormerConfig()
    settings = {name: given.get(name, getattr(defaults, name)) for name in _STATED}
    return {**settings, "num_query_tokens": given["num_query_tokens"]}


def _settings_from_shapes(source: Path, state: State) -> dict[str, Any]:
    """Return the arguments of `MivpgConfig` for a file without config.json."""
    probes = (
        "query_tokens",
        "qformer.encoder.layer.0.crossattention.attention.key.weight",
        "qformer.encoder.layer.0.intermediate_query.dense.weight",
    )
    _refuse_differences(source, missing=[name for name in probes if name not in state], unexpected=[])
    if flat := [name for name in probes if state[name].ndim < 2]:
        raise ModelError(f"{source}: {first(flat)}: not the shape of a Q-Former's; download the checkpoint again")
    queries, key, intermediate = (state[name].shape for name in probes)
    if queries[-1] % _LAVIS_HEAD_SIZE:
        raise ModelError(
            f"{source}: no {CONFIG_FILE} beside it states the number of heads, and a hidden_size of {queries[-1]} does "
            f"not divide into heads of {_LAVIS_HEAD_SIZE}; give config=MivpgConfig(...)"
        )
    layers = {int(found[1]) for name in state if (found := re.match(LAYER, name))}
    crossed = sorted({int(found[1]) for name in state if (found := re.match(LAYER + "crossattention", name))})
    shown = {
        "hidden_size": queries[-1],
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": queries[-1] // _LAVIS_HEAD_SIZE,
        "intermediate_size": intermediate[0],
        "encoder_hidden_size": key[1],
        "cross_attention_frequency": crossed[1] if len(crossed) > 1 else len(layers),
        "num_query_tokens": queries[-2],
    }
    return _with_defaults(shown)


def _refuse_other_sizes(source: Path, config: MivpgConfig, stated: dict[str, Any]) -> None:
    """Refuse sizes that differ, also those that no shape shows: heads and epsilon."""
    names = (*_SIZES, "num_query_tokens")
    other = [f"{name} {stated[name]}, not {mine}" for name in names if (mine := getattr(config, name)) != stated[name]]
    if other:
        raise ModelError(f"{source}: its Q-Former has {first(other, '; ')}; give a config with the checkpoint's sizes")


def _language_projection(source: Path, found: State, hidden_size: int) -> tuple[Tensor, Tensor] | None:
    if not found:
        return None
    _refuse_differences(source, missing=set(_PROJECTION) - found.keys(), unexpected=[])
    weight, bias = (found[name] for name in _PROJECTION)
    if bias.ndim != 1 or weight.shape != (len(bias), hidden_size):
        raise ModelError(
            f"{source}: language_projection has weight {tuple(weight.shape)} and bias {tuple(bias.shape)}, not "
            f"(width, {hidden_size}) and (width,); download the checkpoint again"
        )
    return weight, bias


def _filled(source: Path, state: State, config: MivpgConfig, kv: str) -> MivpgModel:
    """Build the model and put all tensors of `state` and no others into it."""
    if kv == "fresh":
        state = {name: tensor for name, tensor in state.items() if not _KEY_OR_VALUE.fullmatch(name)}
    else:
        _refuse_other_width(source, state, config.encoder_hidden_size)
    model = MivpgModel(config)
    model.train(False)
    own = model.state_dict()
    new = {
        name: tensor
        for name, tensor in own.items()
        if _NEW.fullmatch(name) or (kv == "fresh" and _KEY_OR_VALUE.fullmatch(name))
    }
    wanted = own.keys() - new.keys()
    _refuse_differences(source, missing=wanted - state.keys(), unexpected=state.keys() - wanted)
    if shapes := [
        f"{name} {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in sorted(wanted)
        if state[name].shape != own[name].shape
    ]:
        raise ModelError(f"{source}: other shapes than the config's: {first(shapes, '; ')}; give the checkpoint's own")
    model.load_state_dict(state | new)
    return model


def _refuse_other_width(source: Path, state: State, width: int) -> None:
    trained = {tensor.shape[-1] for name, tensor in state.items() if _KEY_OR_VALUE.fullmatch(name) and tensor.ndim == 2}
    if len(trained) == 1 and width not in trained:
        (read,) = trained
        raise ModelError(
            f"{source}: its keys and values read instances of width {read}, but encoder_hidden_size is {width}; keep "
            f"encoder_hidden_size={read} and set input_dim={width} (a learned projection), or load with "
            'kv="fresh" (new keys and values)'
        )


def _refuse_differences(source: Path, *, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    found = [
        f"{len(names)} {what} ({first(names)})"
        for what, names in (("missing", sorted(missing)), ("unexpected", sorted(unexpected)))
        if names
    ]
    if found:
        raise ModelError(f"{source}: not a whole Q-Former of this size; tensors by name: {' and '.join(found)}")
