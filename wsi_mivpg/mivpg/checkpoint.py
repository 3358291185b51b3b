"""Find a published BLIP-2 checkpoint and read its Q-Former, under Hugging Face's names, and nothing else of it.

Safetensors, or files of `torch.save` under `weights_only`: a pickle that runs code is refused. What the tensors must
be is for `pretrained` to say.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wsi_mivpg.errors import ModelError

State = dict[str, Tensor]

CONFIG_FILE = "config.json"
INDEX_SUFFIX = ".index.json"
WEIGHTS_FILES = tuple(name + end for name in ("model.safetensors", "pytorch_model.bin") for end in ("", INDEX_SUFFIX))
LAYER = r"qformer\.encoder\.layer\.(\d+)\."

_RENAMES = (  # stored name -> ours, one after another
    (re.compile(r"^Qformer\.bert\."), "qformer."),  # LAVIS
    (re.compile(r"^(opt|t5|llm)_proj\."), "language_projection."),  # LAVIS
    (re.compile(r"^(qformer\..*attention)\.self\."), r"\1.attention."),  # LAVIS, self- and cross-attention
    (re.compile(r"^qformer\.embeddings\.(LayerNorm|layernorm)\."), "qformer.layernorm."),  # LAVIS, InstructBLIP
)
_WANTED = re.compile(r"query_tokens|qformer\..+|language_projection\..+")
_UNUSED = (
    re.compile(r"qformer\.embeddings\.position_ids"),  # of older checkpoints: 0, 1, 2, ...
    re.compile(r"qformer\.embeddings\.(word|position)_embeddings\.weight"),  # of a text, which we do not read
    re.compile(LAYER + r"(intermediate|output)\.(dense|LayerNorm)\.(weight|bias)"),  # feed-forward of that text
)
_SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint lies.

    Attributes:
        source: the file with the weights or with their index; messages name it.
        shards: the files that hold the Q-Former's tensors.
        config: config.json beside them, or ``None``.
    """

    source: Path
    shards: tuple[Path, ...]
    config: Path | None


def find_checkpoint(path_or_id: str, revision: str | None) -> Checkpoint:
    """Find the files in a folder, around a file, or on the hub, of which no other file is downloaded.

    Raises:
        ModelError: there are none, or the hub does not give them.
    """
    here = Path(path_or_id).expanduser()
    names, fetch = WEIGHTS_FILES, partial(_in_folder, here)
    if here.is_file():
        names, fetch = (here.name,), partial(_in_folder, here.parent)
    elif not here.exists():
        fetch = partial(_in_hub, path_or_id, revision)
    for name in names:
        if (file := fetch(name)) is not None:
            shards = _shards(file, fetch) if name.endswith(INDEX_SUFFIX) else (file,)
            return Checkpoint(file, shards, fetch(CONFIG_FILE))
    if here.exists():
        raise ModelError(f"{here}: it holds none of {', '.join(WEIGHTS_FILES)}; give the file with the weights itself")
    raise _not_here(path_or_id, f"none of {', '.join(WEIGHTS_FILES)} in the cache, or on the hub where it is reached")


def read_state(checkpoint: Checkpoint) -> State:
    """Return `query_tokens`, `qformer.*` and `language_projection.*` in float32; no other tensor is read.

    Raises:
        ModelError: a file is damaged, a pickle, quantised, or holds no Q-Former.
    """
    state: State = {}
    for shard in checkpoint.shards:
        state |= _read_safetensors(shard) if shard.suffix == ".safetensors" else _read_torch(shard)
    if not any(name.startswith("qformer.") for name in state):
        raise ModelError(f"{checkpoint.source}: it holds no Q-Former; give a checkpoint of BLIP-2 or InstructBLIP")
    if whole := [name for name, tensor in state.items() if not tensor.is_floating_point()]:
        raise ModelError(f"{checkpoint.source}: {first(whole)}: quantised; give the checkpoint in floating point")
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}


def first(names: Iterable[str], separator: str = ", ") -> str:
    """Return the first few of `names` for a message."""
    names = list(names)
    return separator.join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def _in_folder(folder: Path, name: str) -> Path | None:
    return folder / name if (folder / name).is_file() else None


def _in_hub(hub_id: str, revision: str | None, name: str) -> Path | None:
    try:
        return Path(hf_hub_download(hub_id, name, revision=revision))
    except EntryNotFoundError:  # not in the repository, or offline and not in the cache
        return None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _not_here(hub_id, (str(error).strip().splitlines() or [type(error).__name__])[0]) from error


def _not_here(path_or_id: str, reason: str) -> ModelError:
    return ModelError(
        f"{path_or_id!r} is no file or folder here, nor a BLIP-2 that the Hugging Face hub gives ({reason}); run "
        f"`hf download {path_or_id}` where there is a network, or give the path of a folder or file"
    )


def _shards(index: Path, fetch: Callable[[str], Path | None]) -> tuple[Path, ...]:
    """Return those files that `index` names which hold a tensor of ours."""
    try:
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({name for key, name in weight_map.items() if _own_name(key) is not None})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: not an index of weights ({error!r}); download it again") from error
    shards = [fetch(name) for name in names]
    if absent := [name for name, shard in zip(names, shards, strict=True) if shard is None]:
        raise ModelError(f"{index}: it names {first(absent)}, absent; download the checkpoint again")
    return tuple(shard for shard in shards if shard is not None)


def _own_name(stored: str) -> str | None:
    """Return our name of a stored tensor, or None where it is not the Q-Former's or the queries do without it."""
    name = stored
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    ours = _WANTED.fullmatch(name) and not any(pattern.fullmatch(name) for pattern in _UNUSED)
    return name if ours else None


def _read_safetensors(path: Path) -> State:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = {key: name for key in file.keys() if (name := _own_name(key)) is not None}  # noqa: SIM118
            return {name: file.get_tensor(key) for key, name in names.items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); download it again") from error


def _read_torch(path: Path) -> State:
    try:  # mapped, so that what is not ours is not read either; torch cannot map its oldest format
        stored: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: it is damaged, or holds pickled objects other than tensors, which could run code and are never "
            "loaded; save the tensors alone, with safetensors.torch.save_file"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ModelError(f"{path}: not a readable torch file ({error}); download it again") from error
    if isinstance(stored, dict) and isinstance(stored.get("model"), dict):  # LAVIS
        stored = stored["model"]
    if not isinstance(stored, dict):
        raise ModelError(f"{path}: it holds a {type(stored).__name__}, not tensors by name")
    names = {key: name for key in stored if isinstance(key, str) and (name := _own_name(key)) is not None}
    return {name: stored[key] for key, name in names.items() if isinstance(stored[key], Tensor)}
