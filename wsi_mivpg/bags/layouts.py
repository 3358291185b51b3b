"""Which tool wrote a file: a table of recognisers, each a small function from an open file to a bag, or None.

The exact layouts are listed in docs/bag-format.md. HDF5 ones are here and in `hdf5_layouts`; nothing is converted.
"""

from dataclasses import replace
from pathlib import Path

import h5py

from wsi_mivpg.bags import hdf5_layouts
from wsi_mivpg.bags.arrays import ALL, CSV, NPY, TORCH, open_array
from wsi_mivpg.bags.bag import FeatureBag, Places, Told, agree
from wsi_mivpg.errors import BagError

SUFFIXES = (".h5", ".hdf5", *NPY, *CSV, *TORCH)
SLIDECHAT_DIM = 512
"""SlideChat's tools take the first 512 columns (CONCH's features); what follows are places, in a unit not stated."""


def open_bag(path: Path, told: Told) -> FeatureBag:
    """Return the bag in a file; see `FeatureBag.open`."""
    if not path.is_file():
        raise BagError(f"{path}: no such bag; make it with `wsi-mivpg extract`")
    suffix = path.suffix.lower()
    if suffix in NPY:
        return _completed(_npy(path), told)
    if suffix in CSV:
        return _completed(_slidechat(path), told)
    if suffix in TORCH:
        return _completed(_pt(path), told)
    try:
        with h5py.File(path, "r") as file:
            return _completed(_hdf5(file, path, told), told)
    except (OSError, RuntimeError, KeyError) as error:
        raise BagError(
            f"{path}: not an HDF5 file, or a damaged one ({error}); extract the slide again, or copy the file again"
        ) from error


def _hdf5(file: h5py.File, path: Path, told: Told) -> FeatureBag:
    try:
        for recognise in hdf5_layouts.RECOGNISERS:
            bag = recognise(file, path, told)
            if bag is not None:
                return bag
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise BagError(f"{path}: an attribute or a dataset has a wrong type: {error}") from error
    inside = ", ".join(sorted(file)) or "nothing"
    raise BagError(f"{path}: of no known layout: it holds {inside}; docs/bag-format.md lists the layouts that are read")


def _npy(path: Path) -> FeatureBag:
    with open_array(path, ALL) as array:
        return hdf5_layouts.features_only(array, path, "npy", ALL)


def _pt(path: Path) -> FeatureBag:
    from wsi_mivpg.bags.torch_files import load_arrays

    arrays = load_arrays(path)
    key = next((name for name in (ALL, *hdf5_layouts.FEATURE_NAMES) if name in arrays), None)
    if key is None:
        raise BagError(
            f"{path}: holds the tensors {', '.join(sorted(arrays))}; name the one with the features 'features'"
        )
    bag = hdf5_layouts.features_only(arrays[key], path, "pt", key)
    return replace(bag, places=Places("coords", unit="unstated", to_px=None)) if "coords" in arrays else bag


def is_candidate(path: Path) -> bool:
    """Return whether a file in a folder may be a bag: by its suffix, and a table only if it is wide enough."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES and (suffix not in CSV or _shape_of_csv(path)[1] >= SLIDECHAT_DIM)


def _shape_of_csv(path: Path) -> tuple[int, int]:
    """Return the number of rows below the header, and of columns."""
    try:
        with path.open("rb") as stream:
            columns = len(stream.readline().split(b","))
            return sum(1 for line in stream if line.strip()), columns
    except OSError as error:
        raise BagError(f"{path}: cannot be read: {error.strerror}") from error


def _slidechat(path: Path) -> FeatureBag:
    count, columns = _shape_of_csv(path)
    if columns < SLIDECHAT_DIM:
        raise BagError(f"{path}: {columns} columns; a CSV of features (SlideChat's) has at least {SLIDECHAT_DIM}")
    places = Places(f"{SLIDECHAT_DIM},{columns}", unit="unstated", to_px=None) if columns > SLIDECHAT_DIM else None
    return FeatureBag(path, "slidechat-csv", path.stem, count, SLIDECHAT_DIM, f"0,{SLIDECHAT_DIM}", places)


def _completed(bag: FeatureBag, told: Told) -> FeatureBag:
    """Add what the caller knows.

    Raises:
        BagError: the file states something else.
    """
    numbers = ("slide_mpp", "target_mpp", "tile_px")
    for name in numbers if bag.provenance is None else ("encoder", *numbers):
        stated, said = getattr(bag, name), getattr(told, name)
        if stated is not None and said is not None and not agree(stated, said):
            raise BagError(f"{bag.path}: its {name} is {stated}, not {said}; do not state another")
    bag = replace(
        bag,
        encoder=told.encoder or bag.encoder,
        slide_mpp=bag.slide_mpp or told.slide_mpp,
        target_mpp=bag.target_mpp or told.target_mpp,
        tile_px=bag.tile_px or told.tile_px,
    )
    if bag.tile_size_l0 is None and None not in (bag.slide_mpp, bag.target_mpp, bag.tile_px):
        return replace(bag, tile_size_l0=bag.tile_px * bag.target_mpp / bag.slide_mpp)  # type: ignore[operator]
    return bag
