"""Read published weights as tensors and put them, all of them and no others, into a network.

Safetensors, or files of `torch.save` under `weights_only`: a pickle that runs code is refused. Nothing is dropped or
left at random silently: what a published file holds beyond the encoder is listed in the registry.
"""

import math
import pickle
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional

from wsi_mivpg.encoders.spec import EncoderSpec
from wsi_mivpg.errors import EncoderError

State = dict[str, torch.Tensor]

_SHOWN = 4
_WRAPPERS = ("state_dict", "model")
_POSITIONS = re.compile(r"(^|\.)(pos_embed|embed_positions\.A\.weight)$")


def read_state(spec: EncoderSpec, paths: Sequence[Path]) -> State:
    """Return the encoder's tensors in float32 by the names of its network, before any conversion.

    Raises:
        EncoderError: a file is damaged, pickled, or holds no tensor of the encoder.
    """
    state: State = {}
    for path in paths:
        state |= _read_safetensors(path, spec.prefix) if path.suffix == ".safetensors" else _read_torch(path)
    ignored = [re.compile(pattern) for pattern in spec.ignored_keys]
    used = {
        _renamed(key.removeprefix(spec.prefix), spec.rename): tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
        if key.startswith(spec.prefix) and not any(pattern.fullmatch(key) for pattern in ignored)
    }
    if not used:
        raise EncoderError(f"{paths[0]}: it holds no tensor of {spec.name} among {len(state)}: {_first(state)}")
    return used


def fill(network: torch.nn.Module, spec: EncoderSpec, state: State, path: Path) -> None:
    """Convert `state` as the spec says and load it into `network`.

    Raises:
        EncoderError: a tensor is missing, unexpected, or of another shape.
    """
    expected = network.state_dict()
    if spec.convert == "by-order":
        state = renamed_by_order(state, expected, path)
    elif spec.convert == "timm":
        _refuse_other_grid(network, state, path)
        state = sys.modules[type(network).__module__].checkpoint_filter_fn(state, network)
    elif spec.convert == "conch-v1.5":
        state = {
            name: _spread_positions(tensor, expected[name]) if name == "trunk.pos_embed" else tensor
            for name, tensor in state.items()
        }
    refuse_differences(spec, path, missing=expected.keys() - state.keys(), unexpected=state.keys() - expected.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)}, not {tuple(wanted.shape)}"
        for name, wanted in expected.items()
        if state[name].shape != wanted.shape
    ]
    if shapes:
        raise EncoderError(f"{path}: not the weights of {spec.name}; other shapes: {_first(shapes, '; ')}")
    network.load_state_dict(state, assign=True)


def refuse_differences(spec: EncoderSpec, path: Path, *, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raise an EncoderError that names the first missing and unexpected tensors, where there are any."""
    missing, unexpected = sorted(missing), sorted(unexpected)
    found = [
        f"{len(names)} {what} ({_first(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if found:
        raise EncoderError(f"{path}: not the weights of {spec.name}; tensors by name: {' and '.join(found)}")


def renamed_by_order(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], path: Path) -> State:
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


def _read_safetensors(path: Path, prefix: str) -> State:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{path}: not a readable safetensors file ({error}); download it again") from error


def _read_torch(path: Path) -> State:
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise EncoderError(
            f"{path}: it is damaged, or holds pickled objects other than tensors, which could run code and are never "
            "loaded; save the tensors alone, with safetensors.torch.save_file"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise EncoderError(f"{path}: not a readable torch file ({error}); download it again") from error
    while isinstance(stored, dict) and (inner := next((name for name in _WRAPPERS if name in stored), None)):
        stored = stored[inner]
    if not isinstance(stored, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in stored.values()):
        raise EncoderError(f"{path}: it holds a {type(stored).__name__}, not tensors by name")
    return {str(key): tensor for key, tensor in stored.items()}


def _renamed(key: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        renamed, n_found = re.subn(pattern, replacement, key)
        if n_found:
            return renamed
    return key


def _refuse_other_grid(network: Any, state: State, path: Path) -> None:
    """timm would resample positions of another tile size without a word."""
    n_patches = network.patch_embed.num_patches
    for key, tensor in state.items():
        n_rows = tensor.shape[-2] if _POSITIONS.search(key) and tensor.ndim > 1 else n_patches
        if not 0 <= n_rows - n_patches <= 3:  # a class token, and two rows that BEiT-3 keeps for padding
            raise EncoderError(f"{path}: {key} has {n_rows} positions, the network {n_patches} patches")


def _spread_positions(stored: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Interpolate (1, 1 + n, dim) positions to the grid of `wanted`, as CONCH v1.5 does at every tile.

    Its code adds 0.1 to the number of patches per side before it takes the scale, and so must this.
    """
    n_patches = stored.shape[1] - 1 if stored.ndim == 3 else 0
    side, new_side = math.isqrt(n_patches), math.isqrt(wanted.shape[1] - 1)
    if side in (0, new_side) or side**2 != n_patches:
        return stored  # right already, or so wrong that the comparison of shapes will say so
    grid = stored[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (new_side + 0.1) / side
    spread = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([stored[:, :1], spread.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _first(names: Iterable[str], separator: str = ", ") -> str:
    names = list(names)
    return separator.join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
