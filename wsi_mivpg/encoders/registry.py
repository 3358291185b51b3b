"""The published tile encoders, read from ``registry.toml``, and whether their weights are here.

A table only: neither torch nor timm is imported. Building a network is `load`'s job.
"""

import tomllib
from importlib import resources
from typing import Any

from wsi_mivpg.encoders.spec import TOKENS_KEPT, EncoderSpec, TileEncoder
from wsi_mivpg.encoders.weights import is_available
from wsi_mivpg.errors import EncoderError

__all__ = ["REGISTRY", "EncoderSpec", "TileEncoder", "find_spec", "is_available"]


def _read() -> dict[str, EncoderSpec]:
    table = tomllib.loads(resources.files(__package__).joinpath("registry.toml").read_text(encoding="utf-8"))
    specs = [_spec(entry, table["normalisations"]) for entry in table["encoder"]]
    return {spec.name: spec for spec in specs}


def _spec(entry: dict[str, Any], normalisations: dict[str, Any]) -> EncoderSpec:
    for name in ("weights_files", "ignored_keys"):
        entry[name] = tuple(entry.get(name, ()))
    entry["rename"] = tuple((pattern, replacement) for pattern, replacement in entry.get("rename", ()))
    pixels = normalisations[entry.pop("normalisation")]
    return EncoderSpec(mean=tuple(pixels["mean"]), std=tuple(pixels["std"]), **entry)


REGISTRY: dict[str, EncoderSpec] = _read()


def find_spec(name: str) -> EncoderSpec:
    """Return the registered encoder called `name`.

    Raises:
        EncoderError: there is none.
    """
    if name.removesuffix(TOKENS_KEPT) in REGISTRY and name.endswith(TOKENS_KEPT):
        plain = name.removesuffix(TOKENS_KEPT)
        raise EncoderError(
            f"{name!r} makes patch tokens of pictures, not features of tiles: make bags with `wsi-mivpg extract "
            f"PICTURES --encoder {plain} --patch-tokens --out BAGS`, and give these"
        )
    if name not in REGISTRY:
        raise EncoderError(
            f"unknown encoder {name!r}; choose one of: {', '.join(sorted(REGISTRY))} "
            "(`wsi-mivpg encoders` describes them), or give your own as module:function"
        )
    return REGISTRY[name]
