"""One long bag in chunks: in memory, in its own file, or, where its instances change, in a temporary file.

It knows no attention; `absorbed` reads the chunks.
"""

import tempfile
from collections.abc import Callable
from itertools import accumulate
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wsi_mivpg.errors import ModelError

Bag = Tensor | npt.NDArray[Any]
"""(M, D) instances of a bag, or (c, D) of a chunk: a tensor, or an array, usually a file's memory map."""
CPU_CHUNK, GPU_CHUNK = 4096, 32768


def chunk_length(chunk_size: int | None, device: torch.device) -> int:
    """Return the number of instances per chunk: the one asked for, or this device's."""
    return chunk_size or (CPU_CHUNK if device.type == "cpu" else GPU_CHUNK)


def split(bag: Bag, lengths: int | list[int]) -> list[Bag]:
    """Cut into pieces of `lengths` instances; if that is one number, the last may be shorter. Arrays are not read."""
    if isinstance(bag, Tensor):
        return list(bag.split(lengths))  # one node of the graph: slices would each make a gradient of the bag's size
    if isinstance(lengths, int):
        return [bag[start : start + lengths] for start in range(0, len(bag), lengths)]
    return [bag[end - length : end] for end, length in zip(accumulate(lengths), lengths, strict=True)]


def project(chunks: list[Bag], projection: nn.Module, like: Tensor) -> list[Bag]:
    """Project chunks that are in memory, keeping no intermediate results for backward."""

    def visit(chunk: Tensor) -> Tensor:
        return cast(Tensor, projection(chunk.to(like.device, like.dtype)))

    return [recomputed(visit, as_tensor(chunk)) for chunk in chunks]


def spool(chunks: list[Bag], projection: nn.Module | None, like: Tensor) -> list[Bag]:
    """Copy (projected) chunks into a temporary file, from which they are read and where updated ones replace them.

    The file lies in the folder for temporary files (``TMPDIR``), takes 4 bytes a number, and goes with the chunks.

    Raises:
        ModelError: the disk is full.
    """
    lengths = [len(chunk) for chunk in chunks]
    width = 0
    with tempfile.TemporaryFile(prefix="wsi-mivpg-") as file:
        try:
            # Written, not mapped: a full disk is an error here, and a dead process in a map.
            for chunk in chunks:
                instances = as_tensor(chunk).to(like.device, like.dtype)
                instances = instances if projection is None else projection(instances)
                width = instances.shape[1]
                file.write(_float32(instances).tobytes())
            file.flush()
        except OSError as error:
            raise ModelError(
                f"cannot write the bag's {sum(lengths)} updated instances to {tempfile.gettempdir()}: {error}; name a "
                "folder with more space in TMPDIR"
            ) from error
        rows = np.memmap(file, np.float32, mode="r+", shape=(sum(lengths), width))
    return split(rows, lengths)


def as_tensor(chunk: Bag) -> Tensor:
    """Return a chunk as a tensor; a slice of a memory map is read here."""
    return chunk if isinstance(chunk, Tensor) else torch.from_numpy(np.array(chunk))


def store(chunks: list[Bag], place: int, instances: Tensor) -> None:
    """Put updated instances in a chunk's place: into its file where it lies in one."""
    chunk = chunks[place]
    if isinstance(chunk, Tensor):
        chunks[place] = instances
    else:
        chunk[...] = _float32(instances)


def recomputed(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """Call a function, keeping none of its intermediate results for backward; it must not draw random numbers."""
    if not torch.is_grad_enabled():
        return function(*tensors)
    return cast(Any, checkpoint)(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def first_not_finite(bag: Bag) -> int | None:
    """Return the first row that holds NaN or infinity."""
    start = 0
    for part in [bag] if isinstance(bag, Tensor) else split(bag, CPU_CHUNK):
        chunk = as_tensor(part)
        # A sum is one fast pass without a mask of the chunk's size; it is finite if all numbers are, or nearly always.
        if not torch.isfinite(chunk.sum(dtype=torch.promote_types(chunk.dtype, torch.float32))):
            rows = (~torch.isfinite(chunk)).any(dim=1).nonzero()
            if len(rows):
                return start + int(rows[0])
        start += len(chunk)
    return None


def _float32(instances: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = instances.to("cpu", torch.float32).numpy()
    return array
