"""Recognises and checks this package's own bags; what the file's arrays must look like is here."""

from pathlib import Path

import h5py
import numpy as np

from wsi_mivpg.bags.bag import OURS, FeatureBag, Places, Told
from wsi_mivpg.bags.hdf5_facts import known
from wsi_mivpg.bags.provenance import BagProvenance, is_ours, read_provenance
from wsi_mivpg.errors import BagError


def ours(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """This package's bags."""
    if not is_ours(file):
        return None
    made = read_provenance(file, path)
    return FeatureBag(
        path,
        OURS,
        made.slide_id,
        _checked_length(file, path, made),
        made.feature_dim,
        "features",
        Places("coords") if made.coords_known else None,
        encoder=made.encoder or None,
        encoder_weights_sha256=made.encoder_weights_sha256 or None,
        slide_mpp=known(made.slide_mpp),
        target_mpp=known(made.target_mpp),
        tile_px=made.tile_px or None,
        stride_px=made.stride_px or None,
        tile_size_l0=known(made.tile_size_l0),
        slide_size_px=(made.slide_width_px, made.slide_height_px) if made.slide_width_px else None,
        provenance=made,
    )


def _checked_length(file: h5py.File, path: Path, made: BagProvenance) -> int:
    for name in ("features", "coords", "tissue_fraction", "grid", "unreadable"):
        if not isinstance(file.get(name), h5py.Dataset):
            raise BagError(f"{path}: the dataset {name!r} is missing; extract the slide again")
    count = file["features"].shape[0] if file["features"].ndim else 0
    wanted = {
        "features": ((count, made.feature_dim), np.float16),
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
