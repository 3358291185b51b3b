"""Build the network of a registered encoder, and pool its tokens to one vector per tile, or keep them.

Weights are `checkpoint`'s job, so that every network can also be built without any, on torch's meta device.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import timm
import torch
from timm.layers.mlp import SwiGLUPacked
from torch import nn

from wsi_mivpg.encoders.adapters import Conch, ConvStem, Keep
from wsi_mivpg.encoders.spec import TOKENS_KEPT, EncoderSpec, Pooling
from wsi_mivpg.errors import EncoderError

_LAYERS: dict[str, Any] = {"SwiGLUPacked": SwiGLUPacked, "SiLU": nn.SiLU}


class Pooled(nn.Module):
    """A network and how its tokens become one vector; calling it turns (N, 3, tile_px, tile_px) into (N, dim)."""

    def __init__(self, network: nn.Module, pool: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network = network
        self._pool = pool

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return features (N, dim)."""
        return self._pool(self.network, pixels)


def build(spec: EncoderSpec) -> nn.Module:
    """Return the network with the published names and untrained weights, on the default device."""
    arguments = dict(spec.architecture)
    if spec.loader == "transformers":
        model, config = transformers_parts(spec)
        network: nn.Module = model(config, **arguments.get("arguments", {}))
        return network
    if spec.loader == "conch":
        return Conch(dim=spec.dim, **arguments)
    if spec.loader == "keep":
        return Keep(dim=spec.dim, **arguments)
    if spec.loader == "ctranspath":
        arguments["embed_layer"] = ConvStem
    if "norm_eps" in arguments:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=arguments.pop("norm_eps"))
    for name, value in arguments.items():
        if isinstance(value, str):
            arguments[name] = _LAYERS.get(value, value)
    return timm.create_model(arguments.pop("model"), pretrained=False, **arguments)


def transformers_parts(spec: EncoderSpec) -> tuple[Any, Any]:
    """Return the model class and the configuration of an encoder that transformers builds."""
    import transformers

    model = getattr(transformers, spec.architecture["model"])
    return model, model.config_class(**spec.architecture["config"])


def pooled(spec: EncoderSpec, network: Any) -> nn.Module:
    """Return `network` without its classifier and with the pooling of `spec` after it."""
    if spec.loader == "package":  # its weights have a classifier, and are counted with it
        network.reset_classifier(0)
    return Pooled(network, _POOLS[spec.pooling])


def with_tokens(spec: EncoderSpec, network: Any) -> tuple[EncoderSpec, nn.Module]:
    """Return `network` with its tokens kept in place of a vector per tile, and what it then is.

    Kept are the class token, if there is one, and after it the patches row by row; registers are left out. Of a
    convolutional network the cells of the last feature map are the patches.

    Raises:
        EncoderError: its features are not made of tokens alone, or its patches form no square.
    """
    tokens_of = _TOKENS.get(spec.pooling)
    if tokens_of is None:
        raise EncoderError(
            f"the features of {spec.name} come from a head on top of its tokens (pooling {spec.pooling!r}), so that it "
            "has no patch tokens in the space of its features; choose an encoder of another pooling "
            "(`wsi-mivpg encoders --json` lists them), such as blip2-eva-vit-g"
        )
    with torch.inference_mode():
        n_tokens, dim = tokens_of(network.eval(), torch.zeros(1, 3, spec.tile_px, spec.tile_px)).shape[1:]
    if n_tokens - math.isqrt(n_tokens) ** 2 not in (0, 1):
        raise EncoderError(f"{spec.name} gives {n_tokens} tokens, which are no square of patches and a class token")
    kept = Pooled(network, lambda network, pixels: tokens_of(network, pixels).flatten(1))
    return replace(spec, name=spec.name + TOKENS_KEPT, dim=n_tokens * dim, n_tokens=n_tokens), kept


def _tokens(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(N, L, D) tokens after the network's last normalisation, applied once."""
    if hasattr(network, "forward_features"):
        tokens: torch.Tensor = network.forward_features(pixels)
    else:
        tokens = network(pixel_values=pixels).last_hidden_state
    return tokens


def _n_prefix(network: Any) -> int:
    """Tokens before the patches: the class token and the registers."""
    if hasattr(network, "num_prefix_tokens"):
        return int(network.num_prefix_tokens)
    return 1 + int(getattr(network.config, "num_register_tokens", 0))


def _cls(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    return _tokens(network, pixels)[:, 0]


def _cls_and_mean(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    tokens = _tokens(network, pixels)
    return torch.cat([tokens[:, 0], tokens[:, _n_prefix(network) :].mean(dim=1)], dim=-1)


def _cls_per_channel(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    grey = pixels.reshape(-1, 1, *pixels.shape[2:])
    return _cls(network, grey).reshape(len(pixels), -1)


def _mean(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    output: Any = network(pixels)
    features: torch.Tensor = output[-1].mean(dim=(2, 3)) if isinstance(output, list) else output
    return features


def _head(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    output: Any = network(pixels)
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.image_embeds
    return features


def _class_and_patches(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    tokens = _tokens(network, pixels)
    return torch.cat([tokens[:, :1], tokens[:, _n_prefix(network) :]], dim=1)


def _cells(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(N, side * side, D) cells of the last feature map, row by row."""
    output: Any = network.forward_features(pixels) if hasattr(network, "forward_features") else network(pixels)
    cells: torch.Tensor = output[-1] if isinstance(output, list) else output
    is_channels_last = cells.shape[1] == cells.shape[2]  # tiles are square: these are the map's sides
    return cells.flatten(1, 2) if is_channels_last else cells.flatten(2).transpose(1, 2)


_POOLS: dict[Pooling, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "cls": _cls,
    "cls+mean": _cls_and_mean,
    "cls-per-channel": _cls_per_channel,
    "mean": _mean,
    "head": _head,
}

_TOKENS: dict[Pooling, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "cls": _class_and_patches,
    "cls+mean": _class_and_patches,
    "mean": _cells,
}
