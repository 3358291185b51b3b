"""One slide's features in one HDF5 file, with how they were made.

Datasets `features` (N, D) float16, `coords` (N, 2) int64, `tissue_fraction` (N,) float32 and `unreadable` (K, 2)
int64; provenance in the root's attributes. It knows neither slides nor models.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from wsi_mivpg.atomic import replaced
from wsi_mivpg.errors import BagError

SCHEMA = "wsi-mivpg-bag/2"


@dataclass(frozen=True)
class BagProvenance:
    """How a bag was made; each field is an attribute of the file's root.

    `slide_path` is the file's name without folders. `settings_hash` covers all that decides the features, not
    the version. Lengths are in level-0 pixels (`_px`, `_l0`) or microns per pixel (`mpp`).
    """

    slide_id: str
    slide_path: str
    slide_fingerprint: str
    slide_width_px: int
    slide_height_px: int
    slide_mpp: float
    mpp_source: str
    reader: str
    target_mpp: float
    tile_px: int
    tile_size_l0: float
    min_tissue: float
    tissue_method: str
    encoder: str
    encoder_weights_sha256: str
    feature_dim: int
    settings_hash: str
    version: str


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
                provenance = _provenance_of(file, path)
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


def write_bag(
    path: Path,
    features: npt.NDArray[np.float16],
    coords: npt.NDArray[np.int64],
    tissue_fraction: npt.NDArray[np.float32],
    provenance: BagProvenance,
    unreadable: npt.NDArray[np.int64] | None = None,
) -> None:
    """Write a bag, whole or not at all; the same arguments give the same bytes.

    Args:
        path: where to; replaced if it is there.
        features: (N, D) float16.
        coords: (N, 2) int64, level-0 px.
        tissue_fraction: (N,) float32.
        provenance: how it was made.
        unreadable: (K, 2) int64, level-0 px, planned tiles that could not be decoded; None for none.

    Raises:
        BagError: the arrays do not fit together.
        OutputError: the folder cannot be written.
    """
    count = len(features)
    if features.shape != (count, provenance.feature_dim) or coords.shape != (count, 2):
        raise BagError(
            f"{path}: features {features.shape} and coords {coords.shape} do not fit {count} tiles of "
            f"{provenance.feature_dim} features"
        )
    if tissue_fraction.shape != (count,):
        raise BagError(f"{path}: tissue_fraction {tissue_fraction.shape} does not fit {count} tiles")
    with replaced(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        file.create_dataset("features", data=features.astype(np.float16), track_times=False)
        file.create_dataset("coords", data=coords.astype(np.int64), track_times=False)
        file.create_dataset("tissue_fraction", data=tissue_fraction.astype(np.float32), track_times=False)
        lost = np.empty((0, 2)) if unreadable is None else unreadable
        file.create_dataset("unreadable", data=lost.astype(np.int64), track_times=False)
        file.attrs["schema"] = SCHEMA
        for name, value in dataclasses.asdict(provenance).items():
            file.attrs[name] = value
        file.attrs["complete"] = True


def _provenance_of(file: h5py.File, path: Path) -> BagProvenance:
    schema = file.attrs.get("schema")
    if schema != SCHEMA:
        raise BagError(f"{path}: schema {schema!r}, expected {SCHEMA!r}; extract the slide with this version")
    if not file.attrs.get("complete", False):
        raise BagError(f"{path}: the bag is incomplete; extract the slide again with --overwrite")
    kinds: dict[str, type] = {field.name: field.type for field in dataclasses.fields(BagProvenance)}  # type: ignore[misc]
    missing = sorted(kinds.keys() - file.attrs.keys())
    if missing:
        raise BagError(f"{path}: attributes are missing: {', '.join(missing)}; extract the slide again")
    try:
        return BagProvenance(**{name: kind(file.attrs[name]) for name, kind in kinds.items()})
    except (TypeError, ValueError) as error:
        raise BagError(f"{path}: an attribute has a wrong type ({error}); extract the slide again") from error


def _checked_length(file: h5py.File, path: Path, dim: int) -> int:
    for name in ("features", "coords", "tissue_fraction", "unreadable"):
        if not isinstance(file.get(name), h5py.Dataset):
            raise BagError(f"{path}: the dataset {name!r} is missing; extract the slide again")
    count = file["features"].shape[0] if file["features"].ndim else 0
    wanted = {
        "features": ((count, dim), np.float16),
        "coords": ((count, 2), np.int64),
        "tissue_fraction": ((count,), np.float32),
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
