"""Recognisers of HDF5 layouts, in the order in which they are asked: the surest mark first.

Each takes an open file and returns a bag, or None where the file is not its tool's. They read attributes and shapes,
never features. The facts that they stand on are listed in docs/bag-format.md.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wsi_mivpg.bags.bag import FeatureBag, Told
from wsi_mivpg.bags.hdf5_facts import (
    columns,
    coordinate_attributes,
    features_or_places,
    matrix,
    number,
    places,
    text,
    whole,
)
from wsi_mivpg.bags.ours import ours
from wsi_mivpg.errors import BagError

FEATURE_NAMES = ("features", "feats", "embeddings")
Recogniser = Callable[[h5py.File, Path, Told], FeatureBag | None]

_TRIDENT_FOLDER = re.compile(r"features_(.+)")
_HISTOGPT_FOLDER = re.compile(r"(\d+)px_.+_([\d.]+)mpp_([\d.]+)xdown_.*")


def atlaspatch(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """AtlasPatch: a group of features by encoder; places are x, y, width, height, level; attributes on the file."""
    group, stated = file.get("features"), file.attrs
    if not isinstance(group, h5py.Group) and not (columns(file) == 5 and "patch_size_level0" in stated):
        return None
    names = sorted(group) if isinstance(group, h5py.Group) else []
    if told.encoder is not None and told.encoder not in names:
        raise BagError(f"{path}: has no features of {told.encoder!r}; it has: {', '.join(names) or 'none'}")
    if told.encoder is None and len(names) > 1:
        raise BagError(f"{path}: has features of {', '.join(names)}; choose one (`encoder=`, `--encoder NAME`)")
    encoder = told.encoder or (names[0] if names else None)
    key = f"features/{encoder}" if encoder else None
    return _trident_like(file, path, "atlaspatch", key, stated, encoder, number(stated, "mpp") or told.slide_mpp)


def stamp(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """STAMP from 2.0: `feats`, and places in microns."""
    stated = file.attrs
    tile_um = number(stated, "tile_size_um") or (number(stated, "tile_size") if text(stated, "unit") == "um" else None)
    if "feats" not in file or tile_um is None:
        return None
    if (kind := text(stated, "feat_type")) not in (None, "tile"):
        raise BagError(f"{path}: holds STAMP's features of a whole {kind}; give the file with the tiles' features")
    count, dim = matrix(file["feats"], path)
    tile_px = whole(stated, "tile_size_px")
    return FeatureBag(
        path,
        "stamp",
        path.stem,
        count,
        dim,
        "feats",
        places(file, path, count, unit="um", to_px=1 / told.slide_mpp if told.slide_mpp else None),
        encoder=text(stated, "extractor"),
        target_mpp=tile_um / tile_px if tile_px else None,
        tile_px=tile_px,
        tile_size_l0=tile_um / told.slide_mpp if told.slide_mpp else None,
    )


def histogpt(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """HistoGPT: `feats`, places (scene, x, y) in pixels of the shrunken scene, whose x runs down and y across.

    The scale is in the folder's name only. Places of a slide with several scenes are not known on the slide.
    """
    if "feats" not in file or not ("slide_sizes" in file or columns(file) == 3):
        return None
    count, dim = matrix(file["feats"], path)
    sizes = np.atleast_2d(file["slide_sizes"][...]) if "slide_sizes" in file else np.empty((0, 2))
    folder = _HISTOGPT_FOLDER.fullmatch(path.parent.name)
    side, mpp, shrunk = (float(part) for part in folder.groups()) if folder else (0.0, 0.0, 0.0)
    target_mpp = mpp if folder and not shrunk else told.target_mpp
    scale = shrunk or (target_mpp / told.slide_mpp if target_mpp and told.slide_mpp else None)
    if shrunk and told.slide_mpp:
        target_mpp = told.slide_mpp * shrunk
    place = places(file, path, count, (2, 1), "unstated", scale if folder and len(sizes) == 1 else None)
    return FeatureBag(
        path,
        "histogpt",
        path.stem,
        count,
        dim,
        "feats",
        place,
        encoder=file["model_name"].asstr()[()] if "model_name" in file else None,
        target_mpp=target_mpp,
        tile_px=int(side) or None,
        tile_size_l0=side * scale if scale and side else None,
        slide_size_px=(int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) == 1 else None,
    )


def wsinfer(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """wsinfer: `coords` alone; `patch_size` is in level-0 px, not in those of `patch_level` as CLAM's."""
    stated = coordinate_attributes(file)
    if "patch_spacing_um_px" not in stated:
        return None
    count, dim, key = features_or_places(file, path)
    return FeatureBag(
        path,
        "wsinfer",
        path.stem,
        count,
        dim,
        key,
        places(file, path, count),
        target_mpp=number(stated, "patch_spacing_um_px"),
        tile_size_l0=number(stated, "patch_size"),
    )


def trident(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """TRIDENT: `features` and `coords`, or `coords` alone; it states magnifications, no microns per pixel."""
    stated = coordinate_attributes(file)
    if "patch_size_level0" not in stated:
        return None
    key = "features" if "features" in file else None
    folder = _TRIDENT_FOLDER.fullmatch(path.parent.name)
    encoder = text(file["features"].attrs, "encoder") if key else None
    return _trident_like(
        file, path, "trident", key, stated, encoder or (folder[1] if folder and key else None), told.slide_mpp
    )


def clam(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """CLAM: `features` and `coords` without attributes, or `coords` alone with `patch_size` at `patch_level`."""
    stated = coordinate_attributes(file)
    if columns(file) != 2 or not ("features" in file or "patch_level" in stated):
        return None
    count, dim, key = features_or_places(file, path)
    side, on_level_0 = number(stated, "patch_size"), stated.get("patch_level") == 0
    shrunk = float(np.ravel(stated["downsample"])[0]) if "downsample" in stated else None
    downsample = 1.0 if on_level_0 else shrunk
    size = np.ravel(stated["level_dim"]) if on_level_0 and "level_dim" in stated else None
    return FeatureBag(
        path,
        "clam",
        text(stated, "name") or path.stem,
        count,
        dim,
        key,
        places(file, path, count),
        tile_size_l0=side * downsample if side and downsample else None,
        slide_size_px=None if size is None else (int(size[0]), int(size[1])),
    )


def mopadi(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """MoPaDi: `feats` and `coords` whose axes and unit nobody states, or `features` and the tiles' file names."""
    if "metadata" not in file and not ("feats" in file and "coords" in file):
        return None
    key = "feats" if "feats" in file else "features"
    count, dim = matrix(file[key], path)
    place = places(file, path, count, unit="unstated", to_px=None) if "coords" in file else None
    return FeatureBag(path, "mopadi", _name(path), count, dim, key, place)


def plain(file: h5py.File, path: Path, told: Told) -> FeatureBag | None:
    """Features and nothing else, under one of the usual names."""
    key = next((name for name in FEATURE_NAMES if isinstance(file.get(name), h5py.Dataset)), None)
    return None if key is None else features_only(file[key], path, "hdf5", key)


RECOGNISERS: tuple[Recogniser, ...] = (ours, atlaspatch, stamp, histogpt, wsinfer, trident, clam, mopadi, plain)


def features_only(array: Any, path: Path, layout: str, key: str) -> FeatureBag:
    """Return a bag of features (N, D) or (1, N, D) of which nothing else is known."""
    return FeatureBag(path, layout, _name(path), *matrix(array, path), key)


def _trident_like(
    file: h5py.File,
    path: Path,
    layout: str,
    key: str | None,
    stated: Mapping[str, Any],
    encoder: str | None,
    slide_mpp: float | None,
) -> FeatureBag:
    count, dim, _ = features_or_places(file, path, key)
    side, tile_px = number(stated, "patch_size_level0"), whole(stated, "patch_size")
    width, height = whole(stated, "level0_width"), whole(stated, "level0_height")
    return FeatureBag(
        path,
        layout,
        text(stated, "name") or path.stem.removesuffix("_patches"),
        count,
        dim,
        key,
        places(file, path, count),
        encoder=encoder,
        slide_mpp=slide_mpp,
        target_mpp=slide_mpp * side / tile_px if slide_mpp and side and tile_px else None,
        tile_px=tile_px,
        stride_px=None if tile_px is None else tile_px - (whole(stated, "overlap") or 0),
        tile_size_l0=side,
        slide_size_px=(width, height) if width and height else None,
    )


def _name(path: Path) -> str:
    """Return the slide's name: the file's, or its folder's where every file has the same name."""
    return path.parent.name if path.stem in FEATURE_NAMES and path.parent.name else path.stem
