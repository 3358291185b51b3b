"""The file that holds a model's trust gates, `trust.safetensors`: arrays, and settings as JSON in its header.

One file, so that it is whole or not there; it names the weights that it was calibrated for.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError

from wsi_mivpg.atomic import replaced, sha256_of
from wsi_mivpg.captioner.saving import TRUST_FILE, WEIGHTS_FILE, find_model
from wsi_mivpg.errors import ModelError, OutputError
from wsi_mivpg.trust.confidence import Confidence
from wsi_mivpg.trust.distribution import TrainingCases
from wsi_mivpg.trust.fields import FieldConfidence
from wsi_mivpg.trust.gates import Threshold, TrustGates

SCHEMA = "wsi-mivpg-trust/1"
_ARRAYS = ("mean", "scale", "directions", "variances")
_AGAIN = "calibrate the model again with `wsi-mivpg calibrate`"


def write_gates(folder: Path, gates: TrustGates) -> Path:
    """Write a model folder's gates, whole or not at all; return the file.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = folder / TRUST_FILE
    training = {name: torch.from_numpy(getattr(gates.training, name)).half() for name in _ARRAYS if name != "scale"}
    # Scales of features that hardly vary are too small for float16.
    training["scale"] = torch.from_numpy(gates.training.scale)
    training["variances"] = torch.from_numpy(gates.training.variances)
    tensors = {**{f"training.{name}": one for name, one in training.items()}, "others": gates.others.half().cpu()}
    tensors["zeroed"] = gates.zeroed.half().cpu()
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        "model_sha256": gates.model_sha256,
        "other_variance": gates.training.other_variance,
        "thresholds": {name: asdict(one) for name, one in gates.thresholds.items()},
        "confidence": asdict(gates.confidence),
        "confidence_with_samples": asdict(gates.confidence_with_samples) if gates.confidence_with_samples else None,
        "facts": dict(gates.facts),
        "fields": {fingerprint: asdict(one) for fingerprint, one in gates.fields.items()},
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        with replaced(path) as temporary:
            safetensors.torch.save_file(contiguous, temporary, metadata={"trust": json.dumps(settings)})
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {error}; what was there before is intact") from error
    return path


def load_gates(model: str | Path) -> TrustGates | None:
    """Read a model's gates; None if it was never calibrated.

    Args:
        model: its folder, its id on the hub, or "demo".

    Raises:
        ModelError: there is no such model, the file is damaged, or it was made for other weights.
    """
    folder = find_model(model)
    path = folder / TRUST_FILE
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["trust"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if settings["schema"] != SCHEMA:
            raise ModelError(f"{path} is of schema {settings['schema']!r}, this version reads {SCHEMA!r}; {_AGAIN}")
        gates = _gates(settings, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}; {_AGAIN}, or remove the file") from error
    if (found := sha256_of(folder / WEIGHTS_FILE)) != gates.model_sha256:
        raise ModelError(
            f"{path} was calibrated for weights {gates.model_sha256[:12]}…, but {WEIGHTS_FILE} beside it is "
            f"{found[:12]}…; {_AGAIN}, or remove the file"
        )
    return gates


def _gates(settings: dict[str, Any], tensors: dict[str, torch.Tensor]) -> TrustGates:
    arrays = {name: tensors[f"training.{name}"].float().numpy() for name in _ARRAYS}
    if any(not np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a number in it is not finite")
    return TrustGates(
        training=TrainingCases(other_variance=float(settings["other_variance"]), **arrays),
        others=tensors["others"],
        zeroed=tensors["zeroed"],
        thresholds={name: Threshold(**one) for name, one in settings["thresholds"].items()},
        confidence=_confidence(settings["confidence"]),
        confidence_with_samples=_confidence(settings["confidence_with_samples"])
        if settings["confidence_with_samples"]
        else None,
        model_sha256=settings["model_sha256"],
        facts=settings["facts"],
        fields={fingerprint: _fields(one) for fingerprint, one in settings.get("fields", {}).items()},
    )


def _fields(one: dict[str, Any]) -> FieldConfidence:
    return FieldConfidence(one["schema"], tuple(one["names"]), _confidence(one["confidence"]), one["facts"])


def _confidence(one: dict[str, Any]) -> Confidence:
    settings: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in one.items()}
    return Confidence(**settings)
