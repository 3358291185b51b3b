"""What a tile encoder is: the figures that describe one, and the interface that runs one.

Neither torch nor timm is imported. The published encoders are in `registry`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Pooling = Literal["cls", "cls+mean", "mean", "head", "cls-per-channel"]
Precision = Literal["fp32", "fp16", "bf16"]
Loader = Literal["own", "package", "timm", "transformers", "conch", "ctranspath", "keep", "remote-code"]

TOKENS_KEPT = "+patch-tokens"
"""Ends the name of an encoder whose tokens are kept, so that nobody takes its features for those of tiles."""


@dataclass(frozen=True)
class EncoderSpec:
    """One tile encoder.

    Attributes:
        name: as given to `--encoder`.
        dim: features per tile.
        tile_px: side of the tiles that it takes.
        mpp: microns per pixel of those tiles.
        mean, std: per RGB channel, for pixels scaled to 0..1.
        licence: SPDX identifier of the weights, or their publisher's words.
        gated: whether the weights need an account.
        weights_sha256: of the weights in use. In the registry only where no other file is accepted; the spec of a
            loaded encoder always has it.
        pooling: which tokens become the features.
        n_tokens: 1 where a tile becomes one vector; else its `dim` features are that many tokens of equal width, one
            after another: the class token, if there is one, and the patches row by row.
        precision: what it was published or recommended with.
        loader: who builds the network; "own" is code outside this package.
        hub_id: its repository on the Hugging Face hub, or None.
        revision: the hub's commit, or None for its main branch.
        weights_files: names under which the weights are looked for, best first.
        package: the Python package whose files hold the weights, or None.
        architecture: arguments for the loader.
        prefix: only tensors whose names begin so are read, and the prefix is taken off.
        ignored_keys: patterns of tensors in the published file that the encoder does not use.
        rename: (pattern, replacement) pairs from published names to the network's; the first that fits is used.
        convert: name of the conversion that more than renaming needs, or None.
        source: page that the figures are from.
        how_to_get: what to do where the hub does not hold the weights.
    """

    name: str
    dim: int
    tile_px: int
    mpp: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    gated: bool
    weights_sha256: str = ""
    pooling: Pooling = "cls"
    n_tokens: int = 1
    precision: Precision = "fp32"
    loader: Loader = "own"
    hub_id: str | None = None
    revision: str | None = None
    weights_files: tuple[str, ...] = ()
    package: str | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    ignored_keys: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    convert: Literal["by-order", "timm", "conch-v1.5"] | None = None
    source: str = ""
    how_to_get: str = ""


class TileEncoder(Protocol):
    """Anything that turns tiles into features as its `spec` says."""

    @property
    def spec(self) -> EncoderSpec:
        """What the encoder takes and gives."""
        ...

    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Turn uint8[N, tile_px, tile_px, 3] into float16[N, dim]."""
        ...


class EncoderFactory(Protocol):
    """What `--encoder module:function` and the entry points `wsi_mivpg.encoders` name."""

    def __call__(self, *, device: str, weights: Path | None) -> TileEncoder:
        """Build the encoder on `device`, from `weights` where the user gave a file or folder."""
        ...
