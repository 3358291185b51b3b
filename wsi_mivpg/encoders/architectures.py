"""Build the network of a registered encoder, and pool its tokens to one vector per tile.

Weights are `checkpoint`'s job, so that every network can also be built without any, on torch's meta device.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from timm.layers.mlp import SwiGLUPacked
from torch import nn

from wsi_mivpg.encoders.adapters import Conch, ConvStem, Keep
from wsi_mivpg.encoders.spec import EncoderSpec, Pooling

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


_POOLS: dict[Pooling, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "cls": _cls,
    "cls+mean": _cls_and_mean,
    "cls-per-channel": _cls_per_channel,
    "mean": _mean,
    "head": _head,
}
