"""Encoders for `wsi-mivpg extract --encoder extract_peers.encoders:NAME`, each call timed.

The environment chooses what the command line does not hand on to encoders from elsewhere: EXTRACT_TIMES, the file for
the figures; EXTRACT_PRECISION ("auto", the default, is the package's own choice); EXTRACT_VIT, timm's name.
"""

import atexit
import dataclasses
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from extract_peers.clock import Clock, resident_mb
from wsi_mivpg.encoders.registry import EncoderSpec, find_spec

READ_PX = 256


class Timed:
    """An encoder whose calls are timed; whatever else is asked of it, the encoder itself answers."""

    def __init__(self, encoder: Any, spec: EncoderSpec) -> None:
        self.spec = spec
        self.clock = Clock()
        self._encoder = encoder
        if times := os.environ.get("EXTRACT_TIMES"):
            atexit.register(self.clock.write, Path(times), loaded_mb=resident_mb())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, tiles: np.ndarray) -> np.ndarray:
        """Turn uint8 (N, side, side, 3) into float16 (N, dim)."""
        with self.clock.batch(len(tiles)):
            features: np.ndarray = self._encoder.encode(tiles)
            return features


class MeanColour:
    """The mean of each channel, 0 to 1."""

    def encode(self, tiles: np.ndarray) -> np.ndarray:
        """Turn uint8 (N, side, side, 3) into float16 (N, 3)."""
        return np.array([cv2.mean(tile)[:3] for tile in tiles], dtype=np.float16).reshape(-1, 3) / 255


def mean_colour(**_: object) -> Timed:
    """Return an encoder that costs next to nothing, so that what is measured is everything around it."""
    spec = find_spec("efficientnet-lite0")
    return Timed(MeanColour(), dataclasses.replace(spec, name="mean-colour", dim=3, tile_px=READ_PX))


def efficientnet(device: str = "cpu", **_: object) -> Timed:
    """Return the package's efficientnet-lite0, fed tiles of 256 px, which it shrinks to its 224 itself."""
    from wsi_mivpg.encoders.load import load_encoder

    encoder: Any = load_encoder("efficientnet-lite0", device=device, precision=_precision())
    return Timed(encoder, dataclasses.replace(encoder.spec, name="efficientnet-lite0-256", tile_px=READ_PX))


def vit(device: str = "cpu", **_: object) -> Timed:
    """Return a vision transformer of timm with random weights, run as the package runs its own."""
    import timm
    import torch

    from wsi_mivpg.encoders.network_encoder import NetworkEncoder, chosen_precision

    name = os.environ.get("EXTRACT_VIT", "vit_large_patch16_224")
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0)
    spec = dataclasses.replace(find_spec("efficientnet-lite0"), name=f"random-{name}", dim=network.num_features)
    return Timed(NetworkEncoder(spec, network, device, chosen_precision(_precision(), "fp32", device)), spec)


def _precision() -> str:
    return os.environ.get("EXTRACT_PRECISION", "auto")
