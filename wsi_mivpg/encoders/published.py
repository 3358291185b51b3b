"""Build a published tile encoder with its checked weights, ready to run.

This module imports torch and timm; light code asks `registry` or `load` instead.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from wsi_mivpg.encoders.architectures import build, pooled, transformers_parts, with_tokens
from wsi_mivpg.encoders.checkpoint import fill, read_state, refuse_differences
from wsi_mivpg.encoders.network_encoder import NetworkEncoder, chosen_precision
from wsi_mivpg.encoders.spec import EncoderSpec, TileEncoder
from wsi_mivpg.encoders.weights import find_snapshot, find_weights, how_to_get, sha256_of_weights
from wsi_mivpg.errors import EncoderError


def load_spec(
    spec: EncoderSpec,
    *,
    device: str = "cpu",
    weights: Path | None = None,
    trust_remote_code: bool = False,
    precision: str = "auto",
    compiled: bool = False,
    patch_tokens: bool = False,
) -> TileEncoder:
    """Build the encoder that `spec` describes; arguments and errors as for `load_encoder`."""
    if spec.loader == "remote-code":
        network, sha256 = _remote(spec, weights, trust_remote_code)
    else:
        paths = find_weights(spec, weights)
        sha256 = sha256_of_weights(paths)
        if spec.weights_sha256 not in ("", sha256):
            raise EncoderError(f"{paths[0]}: sha256 {sha256}, expected {spec.weights_sha256}; {how_to_get(spec)}")
        network = _network(spec, paths)
    try:
        made = replace(spec, weights_sha256=sha256)
        chosen = chosen_precision(precision, spec.precision, device)
        made, ready = with_tokens(made, network) if patch_tokens else (made, pooled(made, network))
        return NetworkEncoder(made, ready, device, chosen, compiled=compiled)
    except (RuntimeError, AssertionError) as error:
        raise EncoderError(f"cannot run {spec.name} on device {device!r}: {error}; try --device cpu") from error


def _network(spec: EncoderSpec, paths: tuple[Path, ...]) -> torch.nn.Module:
    state = read_state(spec, paths)
    if spec.loader == "transformers":
        return _from_transformers(spec, state, paths[0])
    network = _unfilled(spec)
    fill(network, spec, state, paths[0])
    return network


def _unfilled(spec: EncoderSpec) -> torch.nn.Module:
    """The network to be filled: on the meta device, which costs nothing, where the file gives every tensor of it."""
    with torch.device("meta"):
        network = build(spec)
    if {name for name, _ in network.named_buffers()} <= network.state_dict().keys():
        return network
    return build(spec)  # with buffers that are computed when it is built


def _from_transformers(spec: EncoderSpec, state: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    """Let transformers map published names to those of its version; it also builds without initialising."""
    model, config = transformers_parts(spec)
    if positions := spec.architecture.get("grid_from"):
        config.image_size = _side_of(state, positions, path) * config.patch_size
    arguments = spec.architecture.get("arguments", {})
    network, report = _from_pretrained(spec, path, model, None, config=config, state_dict=state, **arguments)
    refuse_differences(spec, path, missing=report["missing_keys"], unexpected=report["unexpected_keys"])
    return network


def _from_pretrained(
    spec: EncoderSpec, path: Path, model: Any, *where: Any, **options: Any
) -> tuple[torch.nn.Module, dict[str, Any]]:
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        network, report = model.from_pretrained(*where, output_loading_info=True, **options)
    except (RuntimeError, OSError, ValueError, KeyError, ImportError) as error:
        raise EncoderError(f"{path}: not the weights of {spec.name}: {str(error).strip()}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
    return network, report


def _side_of(state: dict[str, torch.Tensor], positions: str, path: Path) -> int:
    """Patches per side that the stored positions (1, 1 + side², dim) were trained with."""
    n_patches = state[positions].shape[1] - 1 if positions in state else -1
    if n_patches < 1 or math.isqrt(n_patches) ** 2 != n_patches:
        raise EncoderError(f"{path}: {positions} is missing, or its positions form no square")
    return math.isqrt(n_patches)


def _remote(spec: EncoderSpec, weights: Path | None, trust_remote_code: bool) -> tuple[torch.nn.Module, str]:
    if not trust_remote_code:
        raise EncoderError(
            f"{spec.name} is published with Python code of its own: read it at https://huggingface.co/{spec.hub_id}, "
            "then add --trust-remote-code"
        )
    from transformers import AutoModel

    folder = find_snapshot(spec, weights)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EncoderError(f"{folder}: no safetensors in it; {how_to_get(spec)}")
    options = {"trust_remote_code": True, "use_safetensors": True, "local_files_only": True}
    network, report = _from_pretrained(spec, folder, AutoModel, folder, **options)
    refuse_differences(spec, folder, missing=report["missing_keys"], unexpected=report["unexpected_keys"])
    return network, sha256_of_weights(files)
