"""Load a tile encoder by name: a registered one, an entry point's, or the user's own `module:function`.

Torch and timm are imported only for registered ones; an encoder of the user's own may need neither.
"""

import importlib
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from wsi_mivpg.encoders.registry import REGISTRY, EncoderSpec, TileEncoder, find_spec
from wsi_mivpg.encoders.spec import EncoderFactory
from wsi_mivpg.errors import EncoderError

ENTRY_POINTS = "wsi_mivpg.encoders"


def load_encoder(
    name: str,
    *,
    device: str = "cpu",
    weights: Path | None = None,
    trust_remote_code: bool = False,
    precision: str = "auto",
    compiled: bool = False,
    patch_tokens: bool = False,
) -> TileEncoder:
    """Build the encoder called `name` on `device` ("cpu", "cuda" …).

    Args:
        name: a registered encoder, an entry point of the group `wsi_mivpg.encoders`, or `module:function`; the latter
            two are called with `device` and `weights`, and run as they like.
        device: where it runs.
        weights: a local file, or a folder such as a snapshot of the hub's repository.
        trust_remote_code: let an encoder that needs it run the Python code of its hub repository.
        precision: as in `chosen_precision`.
        compiled: let torch compile the network; worth it in long runs only.
        patch_tokens: keep the tokens of each tile (`EncoderSpec.n_tokens`) in place of one vector. An encoder of the
            user's own must do so by itself.

    Raises:
        EncoderError: unknown name, absent or unfit weights, a device that is not here, or no patch tokens to be had.
    """
    if name in REGISTRY:
        from wsi_mivpg.encoders.published import load_spec

        return load_spec(
            REGISTRY[name],
            device=device,
            weights=weights,
            trust_remote_code=trust_remote_code,
            precision=precision,
            compiled=compiled,
            patch_tokens=patch_tokens,
        )
    own = _own_encoder(name, device, weights)
    if patch_tokens and own.spec.n_tokens == 1:
        raise EncoderError(
            f"{name!r} gives one vector per tile (its spec has n_tokens 1), not patch tokens; name a registered one, "
            "or let yours give the tokens one after another and state how many they are"
        )
    return own


def _own_encoder(name: str, device: str, weights: Path | None) -> TileEncoder:
    entry = next(iter(metadata.entry_points(group=ENTRY_POINTS, name=name)), None)
    if entry is None and ":" not in name:
        find_spec(name)  # raises, naming the encoders there are
    try:
        factory: EncoderFactory = entry.load() if entry is not None else _attribute(*name.split(":", 1))
    except (ImportError, AttributeError, ValueError) as error:
        raise EncoderError(f"cannot import the encoder {name!r}: {error}") from error
    encoder: Any = factory(device=device, weights=weights)
    if not isinstance(getattr(encoder, "spec", None), EncoderSpec) or not callable(getattr(encoder, "encode", None)):
        raise EncoderError(
            f"{name!r} gave a {type(encoder).__name__}; it must have `spec`, an EncoderSpec, and `encode`"
        )
    made: TileEncoder = encoder
    return made


def _attribute(module: str, function: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # an installed program does not look there by itself
    return getattr(importlib.import_module(module), function)
