"""Tensors in .pt files; the one module of the bags that needs torch, loaded only for such a file.

Files are read with `weights_only`, so that none of them can run code.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wsi_mivpg.bags.arrays import ALL
from wsi_mivpg.errors import BagError


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return a file's tensors by name; a lone tensor is called `ALL`. bfloat16 becomes float32.

    Raises:
        BagError: damaged, or anything but a tensor or a dictionary of tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BagError(
            f"{path}: holds more than tensors, or is damaged; only files that torch loads with weights_only=True are "
            "read. Save the features alone: torch.save(features, path)"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise BagError(f"{path}: not a file of torch, or a damaged one ({error}); make it again") from error
    named = content if isinstance(content, dict) else {ALL: content}
    tensors = {str(name): value for name, value in named.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise BagError(f"{path}: holds {type(content).__name__}, but no tensor of features")
    return {name: _array(tensor) for name, tensor in tensors.items()}


def save_tensor(path: Path, array: npt.NDArray[np.float32]) -> None:
    """Write one array as a tensor."""
    torch.save(torch.from_numpy(array), path)


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    plain = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    array: npt.NDArray[Any] = plain.numpy()
    return array
