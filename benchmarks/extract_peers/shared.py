"""What all peers' drivers have in common: arguments, the network, its transform, and what is written at the end.

Everybody runs the same network on the same tiles: 256 px of 0.5 microns per pixel, shrunk to 224 px.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import timm
import torch
from torchvision.transforms import v2

from extract_peers.clock import Clock, resident_mb

TILE_PX = 256
MPP = 0.5
INPUT_PX = 224
ENCODERS = ("efficientnet", "mean-colour")


@dataclass(frozen=True)
class Job:
    """One run of one tool.

    Attributes:
        slides: files to extract, in turn.
        weights: a state dict of `tf_efficientnet_lite0` by another port's names.
        encoder: "efficientnet", or "mean-colour", which costs nothing and so shows the pipeline itself.
        precision: "fp32", or "bf16" for autocast around the network.
        channels_last: the memory layout of the network.
        workers: processes (or threads) that read.
        batch: tiles per step.
        out: folder for features and figures.json.
    """

    slides: tuple[Path, ...]
    weights: Path | None
    encoder: str
    precision: str
    channels_last: bool
    workers: int
    batch: int
    out: Path


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every driver takes; a driver may add to them."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("slides", type=Path, nargs="*")
    made.add_argument("--weights", type=Path)
    made.add_argument("--encoder", choices=ENCODERS, default="efficientnet")
    made.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    made.add_argument("--channels-last", action="store_true")
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--out", type=Path, required=True)
    return made


def job_of(arguments: argparse.Namespace) -> Job:
    """Return what `parser` was given."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = ("weights", "encoder", "precision", "channels_last", "workers", "batch", "out")
    return Job(tuple(arguments.slides), **{name: getattr(arguments, name) for name in names})


class TimedNetwork(torch.nn.Module):
    """The network of a job: float or uint8 (N, 3, H, W) to float32 (N, D), each call timed."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.clock = Clock()
        self.network = MeanColour() if job.encoder == "mean-colour" else efficientnet(job.weights)
        if job.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.uses_bf16 = job.precision == "bf16"
        self.loaded_mb = resident_mb()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of a batch."""
        with self.clock.batch(len(pixels)), torch.autocast("cpu", torch.bfloat16, enabled=self.uses_bf16):
            features: torch.Tensor = self.network(pixels)
            return features.float()


class MeanColour(torch.nn.Module):
    """The mean of each channel."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (N, 3); by OpenCV, which takes a hundredth of a millisecond for a tile, torch half a millisecond."""
        return torch.tensor([[cv2.mean(plane)[0] for plane in tile] for tile in pixels.numpy()])


def efficientnet(weights: Path | None) -> torch.nn.Module:
    """Return tf_efficientnet_lite0 without its classifier; the weights' tensors come in timm's order."""
    network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights is not None:
        stored = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)))
    network.reset_classifier(0)
    made: torch.nn.Module = network.eval()
    return made


def transform_of(job: Job) -> v2.Compose:
    """Return what turns a tile, a PIL image or uint8 (H, W, 3), into the network's input (3, h, w).

    The mean colour needs neither another size nor other values, and is spared both.
    """
    if job.encoder == "mean-colour":
        return v2.Compose([v2.ToImage()])
    half = [0.5, 0.5, 0.5]
    steps = [v2.ToImage(), v2.Resize(INPUT_PX, antialias=True), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*steps, v2.Normalize(half, half)])


def finish(job: Job, network: TimedNetwork, *, version: str, features: list[Any], **more: object) -> None:
    """Write figures.json: the clock's figures, tiles per slide, and a checksum of the features."""
    network.clock.write(
        job.out / "figures.json",
        version=version,
        tiles_per_slide=[len(one) for one in features],
        mean_feature=[float(one.mean()) for one in features],
        loaded_mb=network.loaded_mb,
        **more,
    )
