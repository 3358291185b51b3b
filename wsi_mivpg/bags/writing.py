"""Writes this package's bags: one HDF5 file that CLAM, TRIDENT and torchmil read as it is.

Every array is stored contiguously, so that it can be memory-mapped; nothing in the file depends on time or place.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from wsi_mivpg.atomic import replaced
from wsi_mivpg.bags.provenance import SCHEMA, BagProvenance
from wsi_mivpg.errors import BagError

UNKNOWN = -1
_MOST_METADATA_BYTES = 32_768


def write_bag(
    path: Path,
    features: npt.NDArray[np.floating[Any]],
    coords: npt.NDArray[np.int64],
    tissue_fraction: npt.NDArray[np.float32],
    provenance: BagProvenance,
    unreadable: npt.NDArray[np.int64] | None = None,
    grid: npt.NDArray[np.int32] | None = None,
) -> None:
    """Write a bag, whole or not at all; the same arguments give the same bytes.

    Args:
        path: where to; replaced if it is there.
        features: (N, D) float16; wider floats are rounded to it.
        coords: (N, 2) int64, level-0 px, top left corners (x, y); -1 is written where `provenance.coords_known` is
            false.
        tissue_fraction: (N,) float32 in 0..1, NaN where unknown.
        provenance: how it was made.
        unreadable: (K, 2) int64, level-0 px, planned tiles that could not be decoded; None for none.
        grid: (N, 2) int32, the tiles' (column, row); None where they lie in no grid, and -1 is written.

    Raises:
        BagError: the arrays do not fit together, or features are too large for float16.
        OutputError: the folder cannot be written.
        OSError: the disk is full.
    """
    count = len(features)
    lost = np.empty((0, 2), np.int64) if unreadable is None else unreadable
    cells = np.full((count, 2), UNKNOWN, np.int32) if grid is None else grid
    if features.shape != (count, provenance.feature_dim) or coords.shape != (count, 2):
        raise BagError(
            f"{path}: features {features.shape} and coords {coords.shape} do not fit {count} tiles of "
            f"{provenance.feature_dim} features"
        )
    if tissue_fraction.shape != (count,) or cells.shape != (count, 2) or lost.shape != (len(lost), 2):
        raise BagError(
            f"{path}: tissue_fraction {tissue_fraction.shape}, grid {cells.shape} and unreadable {lost.shape} do not "
            f"fit {count} tiles"
        )
    arrays = {
        "features": _as_float16(features, path),
        "coords": coords.astype(np.int64, copy=False) if provenance.coords_known else np.full((count, 2), UNKNOWN),
        "tissue_fraction": tissue_fraction.astype(np.float32, copy=False),
        "grid": cells.astype(np.int32, copy=False),
        "unreadable": lost.astype(np.int64, copy=False),
    }
    with replaced(path) as temporary:
        _refuse_full_disk(temporary, sum(array.nbytes for array in arrays.values()))
        with h5py.File(temporary, "w", track_order=False) as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, track_times=False)
            file["features"].attrs.update({"name": provenance.slide_id, "encoder": provenance.encoder})
            file["coords"].attrs.update(_coordinate_attributes(provenance))
            file.attrs["schema"] = SCHEMA
            for name, value in dataclasses.asdict(provenance).items():
                file.attrs[name] = value
            file.attrs["complete"] = True


def _refuse_full_disk(path: Path, n_bytes: int) -> None:
    """Raise OSError where a file of that size cannot be had: HDF5 cannot close a file that it could not write whole.

    Left so, it ends the process by a signal later.
    """
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, n_bytes + _MOST_METADATA_BYTES)


def _as_float16(features: npt.NDArray[np.floating[Any]], path: Path) -> npt.NDArray[np.float16]:
    try:
        with np.errstate(over="raise"):
            return features.astype(np.float16, copy=False)
    except FloatingPointError as error:
        raise BagError(
            f"{path}: features beyond ±65504 do not fit float16; scale them, or leave the bag in its own layout"
        ) from error


def _coordinate_attributes(made: BagProvenance) -> dict[str, Any]:
    """Return what CLAM, TRIDENT and wsinfer look for on `coords`; nothing where the tiles' places are unknown.

    CLAM's `patch_size` is in pixels of `patch_level`, TRIDENT's in pixels at `target_magnification`, wsinfer's in
    level-0 pixels. All three mean the same field of view only where the patch is described on level 0, as here.
    """
    if not made.coords_known or np.isnan(made.tile_size_l0):
        return {}
    size = np.array([made.slide_width_px, made.slide_height_px])
    side = round(made.tile_size_l0)
    magnification = 10 / made.slide_mpp
    magnifications = {"level0_magnification": magnification, "target_magnification": magnification}
    return {
        "name": made.slide_id,
        "patch_size": side,
        "patch_level": 0,
        "custom_downsample": 1,
        "downsample": np.array([1.0, 1.0]),
        "level_dim": size,
        "downsampled_level_dim": size,
        "patch_size_level0": side,
        "overlap": round(made.tile_size_l0 * (1 - made.stride_px / made.tile_px)) if made.tile_px else 0,
        "level0_width": made.slide_width_px,
        "level0_height": made.slide_height_px,
        **({} if np.isnan(magnification) else magnifications),
    }
