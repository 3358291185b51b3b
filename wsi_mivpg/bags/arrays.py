"""Rows of one array in a bag's file, whatever its kind: HDF5, .npy, .pt or .csv; only what is asked for is read.

It knows files and arrays; what an array means is the business of `layouts`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import BagError

NPY, CSV, TORCH = (".npy",), (".csv",), (".pt", ".pth")
ALL = "all"
"""The key of the only array of a .npy or a .pt file."""
_BLOCK_ROWS = 4096

Index = slice | npt.NDArray[np.integer[Any]]
Real = npt.NDArray[np.floating[Any]]


@contextmanager
def open_array(path: Path, key: str) -> Iterator[Any]:
    """Yield an array-like of `path`: with `shape`, `dtype`, and slices that read no more than they must.

    Args:
        path: the file.
        key: the dataset's name (HDF5), the dictionary's key or `ALL` (.pt), "first,last" columns (.csv).

    Raises:
        BagError: the file is damaged, or has no such array.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in NPY:
            yield np.load(path, mmap_mode="r", allow_pickle=False)
        elif suffix in CSV:
            first, last = map(int, key.split(","))
            yield np.loadtxt(path, np.float32, delimiter=",", skiprows=1, usecols=range(first, last), ndmin=2)
        elif suffix in TORCH:
            from wsi_mivpg.bags.torch_files import load_arrays

            yield load_arrays(path)[key]
        else:
            with h5py.File(path, "r") as file:
                yield file[key]
    except (OSError, EOFError, KeyError, ValueError, RuntimeError) as error:
        raise BagError(f"{path}: cannot read {key!r}: {error}; make the file again") from error


def read_rows(path: Path, key: str, index: Index = slice(None)) -> npt.NDArray[Any]:
    """Return the rows `index` of an array (N, …) or (1, N, D), in that order.

    Raises:
        BagError: as `open_array`.
        IndexError: a row is outside the array.
    """
    with open_array(path, key) as array:
        if isinstance(index, slice):
            return np.asarray(_part(array, index))
        wanted, back = np.unique(index, return_inverse=True)
        count = array.shape[-2 if array.ndim > 1 else 0]
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < count:
            raise IndexError(f"rows {wanted[0]} to {wanted[-1]} of {count}")
        picked = np.empty((len(wanted), *array.shape[-1:]), array.dtype)
        for start in np.unique(wanted // _BLOCK_ROWS) * _BLOCK_ROWS:
            low, high = np.searchsorted(wanted, [start, start + _BLOCK_ROWS])
            picked[low:high] = np.asarray(_part(array, slice(start, start + _BLOCK_ROWS)))[wanted[low:high] - start]
        return picked[back]


def mapped_rows(path: Path, key: str) -> npt.NDArray[Any]:
    """Return an array (N, D) as a read-only memory map where the file stores it in one piece, else read it.

    Raises:
        BagError: as `open_array`.
    """
    with open_array(path, key) as array:
        offset = _offset(array) if isinstance(array, h5py.Dataset) else None
        if offset is None:
            return np.asanyarray(_part(array, slice(None)))
        whole: npt.NDArray[Any] = np.memmap(path, array.dtype, mode="r", offset=offset, shape=array.shape)
        return whole if whole.ndim == 2 else whole[0]


def as_real(array: npt.NDArray[Any]) -> Real:
    """Return float16 and float32 as they are, and anything else as float32; a view where it is one already."""
    native = array.dtype.newbyteorder("=")
    return array.astype(native if native in (np.float16, np.float32) else np.float32, copy=False)


def _part(array: Any, rows: slice) -> Any:
    return array[0, rows] if array.ndim == 3 else array[rows]


def _offset(dataset: h5py.Dataset) -> int | None:
    """Return where the data begin in the file, in bytes; None where they are in pieces, packed or elsewhere."""
    layout = dataset.id.get_create_plist()
    if layout.get_layout() != h5py.h5d.CONTIGUOUS or layout.get_external_count():
        return None
    offset: int | None = dataset.id.get_offset()
    return offset
