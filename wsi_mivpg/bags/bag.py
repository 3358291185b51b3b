"""One slide's features in one HDF5 file, with how they were made.

Datasets `features` (N, D) float16, `coords` (N, 2) int64, `tissue_fraction` (N,) float32 and `unreadable` (K, 2)
int64; provenance in the root's attributes. It knows neither slides nor models.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from wsi_mivpg.bags.provenance import BagProvenance, read_provenance
from wsi_mivpg.errors import BagError


@dataclass(frozen=True)
class FeatureBag:
    """A checked bag on disk; arrays are read when they are asked for.

    Attributes:
        path: the .h5 file.
        provenance: how it was made.
        n_tiles: number of tiles, may be 0.
    """

    path: Path
    provenance: BagProvenance
    n_tiles: int

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Check a bag and read its provenance, not its features.

        Raises:
            BagError: no such file, not HDF5, not a bag, incomplete, or arrays that do not fit together.
        """
        path = Path(path)
        if not path.is_file():
            raise BagError(f"{path}: no such bag; make it with `wsi-mivpg extract`")
        try:
            with h5py.File(path, "r") as file:
                provenance = read_provenance(file, path)
                return cls(path, provenance, _checked_length(file, path, provenance.feature_dim))
        except OSError as error:
            raise BagError(f"{path}: not an HDF5 file, or a damaged one; extract the slide again") from error

    def __len__(self) -> int:
        return self.n_tiles

    @property
    def features(self) -> npt.NDArray[np.float16]:
        """(N, D) float16."""
        return self._read("features")

    @property
    def coords(self) -> npt.NDArray[np.int64]:
        """(N, 2) int64, level-0 px, top left corners (x, y)."""
        return self._read("coords")

    @property
    def tissue_fraction(self) -> npt.NDArray[np.float32]:
        """(N,) float32 in 0..1."""
        return self._read("tissue_fraction")

    @property
    def grid(self) -> npt.NDArray[np.int32]:
        """(N, 2) int32: the tiles' (column, row), -1 where they lie in no grid."""
        return self._read("grid")

    @property
    def unreadable(self) -> npt.NDArray[np.int64]:
        """(K, 2) int64, level-0 px: corners of planned tiles that could not be decoded and have no features."""
        return self._read("unreadable")

    def _read(self, name: str) -> npt.NDArray[Any]:
        try:
            with h5py.File(self.path, "r") as file:
                array: npt.NDArray[Any] = file[name][...]
                return array
        except (OSError, KeyError) as error:
            raise BagError(f"{self.path}: cannot read {name}: {error}; extract the slide again") from error


def _checked_length(file: h5py.File, path: Path, dim: int) -> int:
    for name in ("features", "coords", "tissue_fraction", "grid", "unreadable"):
        if not isinstance(file.get(name), h5py.Dataset):
            raise BagError(f"{path}: the dataset {name!r} is missing; extract the slide again")
    count = file["features"].shape[0] if file["features"].ndim else 0
    wanted = {
        "features": ((count, dim), np.float16),
        "coords": ((count, 2), np.int64),
        "tissue_fraction": ((count,), np.float32),
        "grid": ((count, 2), np.int32),
        "unreadable": ((len(file["unreadable"]), 2), np.int64),
    }
    for name, (shape, dtype) in wanted.items():
        found = file[name]
        if found.shape != shape or found.dtype != dtype:
            raise BagError(
                f"{path}: {name} is {found.dtype} {found.shape}, expected {np.dtype(dtype)} {shape}; "
                "extract the slide again"
            )
    return int(count)
