"""Small questions to an open HDF5 file: shapes, columns, attributes that may be missing or the text 'None'.

Shared by the recognisers; nothing here belongs to one tool.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from wsi_mivpg.bags.bag import Places
from wsi_mivpg.errors import BagError


def matrix(array: Any, path: Path) -> tuple[int, int]:
    """Return N and D of numbers (N, D) or (1, N, D)."""
    shape = getattr(array, "shape", None)
    if shape is None or array.dtype.kind not in "fiu":
        raise BagError(f"{path}: the features are no array of numbers")
    if len(shape) == 1:
        raise BagError(f"{path}: holds one vector of {shape[0]}, not one per tile; give the tiles' features")
    if len(shape) == 3 and shape[0] == 1:
        return int(shape[1]), int(shape[2])
    if len(shape) != 2:
        raise BagError(f"{path}: features of shape {shape}; expected (tiles, features) or (1, tiles, features)")
    return int(shape[0]), int(shape[1])


def features_or_places(file: h5py.File, path: Path, key: str | None = "features") -> tuple[int, int, str | None]:
    """Return N, D and the features' name; D is 0 and the name None where the file has places alone."""
    if key is None or key not in file:
        return len(file["coords"]), 0, None
    return *matrix(file[key], path), key


def places(
    file: h5py.File,
    path: Path,
    count: int,
    columns: tuple[int, int] = (0, 1),
    unit: str = "px",
    to_px: float | None = 1.0,
) -> Places | None:
    """Return where `coords` are; None where the file has none.

    Raises:
        BagError: they do not fit the number of tiles.
    """
    if "coords" not in file:
        return None
    shape = file["coords"].shape
    if len(shape) != 2 or shape[0] != count or shape[1] <= max(columns):
        raise BagError(f"{path}: coords {shape} do not fit {count} tiles")
    return Places("coords", columns, unit, to_px)


def columns(file: h5py.File) -> int:
    """Return how many columns `coords` has; 0 where there are none."""
    coords = file.get("coords")
    return coords.shape[1] if isinstance(coords, h5py.Dataset) and coords.ndim == 2 else 0


def coordinate_attributes(file: h5py.File) -> Mapping[str, Any]:
    """Return the attributes of `coords`; none where there are none."""
    return file["coords"].attrs if columns(file) else {}


def number(stated: Mapping[str, Any], name: str) -> float | None:
    """Return a finite number above 0, or None; some tools write the text 'None' for what they do not know."""
    value = stated.get(name)
    if value is None or isinstance(value, str | bytes):
        return None
    found = known(float(value))
    return found if found and found > 0 else None


def whole(stated: Mapping[str, Any], name: str) -> int | None:
    """Return `number` rounded."""
    found = number(stated, name)
    return None if found is None else round(found)


def text(stated: Mapping[str, Any], name: str) -> str | None:
    """Return a text, or None where it is missing, empty, 'None', or no text."""
    value = stated.get(name)
    said = value.decode() if isinstance(value, bytes) else value
    return said if isinstance(said, str) and said not in ("", "None") else None


def known(value: float) -> float | None:
    """Return the number, or None where it is NaN or infinite."""
    return value if math.isfinite(value) else None
