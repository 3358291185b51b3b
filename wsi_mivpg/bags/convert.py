"""Writes a bag in another layout: this package's, CLAM's or TRIDENT's. Nothing is invented: what is not known stays so.

Features keep their values (CLAM's files are float32, ours float16, TRIDENT's as they are); order is kept.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import wsi_mivpg
from wsi_mivpg.atomic import replaced
from wsi_mivpg.bags.bag import OURS, FeatureBag
from wsi_mivpg.bags.provenance import BagProvenance
from wsi_mivpg.bags.writing import write_bag
from wsi_mivpg.errors import BagError

Target = Callable[..., Path]
"""From a file's folders and name to its path, or BagError where it may not be written."""
_NOMINAL_MPP_AT_1X = 10.0


def convert_bag(
    bag: FeatureBag, out: Path, to: str, encoder_weights_sha256: str = "", *, overwrite: bool = False
) -> list[Path]:
    """Write `bag` in the layout `to` under the folder `out`.

    Args:
        bag: opened with what the caller knows of it.
        out: folder.
        to: "wsi-mivpg" (`<id>.h5`), "clam" (`h5_files`, `pt_files`, `patches`) or "trident"
            (`<mag>x_<px>px_<overlap>px_overlap/` with `features_<encoder>` and `patches`).
        encoder_weights_sha256: for "wsi-mivpg": the weights' hash, where the bag does not state it.
        overwrite: replace files that are there.

    Returns:
        the files written.

    Raises:
        BagError: no such layout, the bag does not state what the layout must hold, or a file is in the way.
        OutputError: the folder cannot be written.
    """
    if to not in TARGETS:
        raise BagError(f"no layout {to!r} to write; choose one of: {', '.join(TARGETS)}")
    if bag.features_key is None:
        raise BagError(f"{bag.path}: holds places only, no features; give the file with the features")

    def target(*parts: str) -> Path:
        path = out.joinpath(*(part.replace("/", "_").replace("\\", "_") for part in parts))
        if path.exists() and (not overwrite or path.samefile(bag.path)):
            raise BagError(f"{path}: in the way; pass --overwrite, or another --out than the bag's own folder")
        return path

    return TARGETS[to](bag, target, encoder_weights_sha256)


def to_ours(bag: FeatureBag, target: Target, encoder_weights_sha256: str) -> list[Path]:
    """Write this package's layout; unknown places, resolutions and tissue are marked as such."""
    _require(bag, "encoder")
    width, height = bag.slide_size_px or (0, 0)
    made = bag.provenance or BagProvenance(
        slide_id=bag.slide_id,
        slide_path="",
        slide_fingerprint="",
        slide_width_px=width,
        slide_height_px=height,
        slide_mpp=bag.slide_mpp or math.nan,
        mpp_source="stated" if bag.slide_mpp else "unknown",
        reader=f"converted from {bag.layout}",
        target_mpp=bag.target_mpp or math.nan,
        tile_px=bag.tile_px or 0,
        stride_px=bag.stride_px or 0,
        tile_size_l0=bag.tile_size_l0 or math.nan,
        min_tissue=math.nan,
        tissue_method="unknown",
        encoder=bag.encoder or "",
        encoder_weights_sha256=bag.encoder_weights_sha256 or encoder_weights_sha256,
        feature_dim=bag.feature_dim,
        precision="unknown",
        plan_digest="",
        coords_known=bag.coords_known,
        case_id="",
        settings_hash="",
        version=wsi_mivpg.__version__,
        torch_version="",
    )
    path = target(f"{bag.slide_id}.h5")
    write_bag(path, bag.features, bag.coords, bag.tissue_fraction, made, bag.unreadable, bag.grid)
    return [path]


def to_clam(bag: FeatureBag, target: Target, _: str) -> list[Path]:
    """Write CLAM's folders; `h5_files` and `patches` only where places are known."""
    from wsi_mivpg.bags.torch_files import save_tensor

    features = bag.features.astype(np.float32, copy=False)
    written = [target("pt_files", f"{bag.slide_id}.pt")]
    with replaced(written[0]) as temporary:
        save_tensor(temporary, features)
    if not bag.coords_known:
        return written
    coords = bag.coords.astype(np.int32)
    arrays = {"features": (features, (1, bag.feature_dim)), "coords": (coords, (1, 2))}
    written.append(_write(target("h5_files", f"{bag.slide_id}.h5"), arrays, {}))
    if bag.tile_size_l0 is not None:
        stated = {
            "patch_size": round(bag.tile_size_l0),
            "patch_level": 0,
            "downsample": np.array([1.0, 1.0]),
            "name": bag.slide_id,
            "save_path": "",
        }
        if bag.slide_size_px is not None:
            size = np.array(bag.slide_size_px)
            stated |= {"downsampled_level_dim": size, "level_dim": size}
        patches = target("patches", f"{bag.slide_id}.h5")
        written.append(_write(patches, {"coords": (coords, (32, 2))}, {"coords": stated}))
    return written


def to_trident(bag: FeatureBag, target: Target, _: str) -> list[Path]:
    """Write TRIDENT's folders; magnifications are 10 / mpp, exact and so not always whole."""
    _require(bag, "encoder", "target_mpp", "tile_px", "tile_size_l0")
    if not bag.coords_known:
        raise BagError(
            f"{bag.path}: the tiles' places are not known in level-0 pixels; state the slide's (--slide-mpp)"
        )
    mpp, tile_px, side = float(bag.target_mpp or 0), int(bag.tile_px or 0), float(bag.tile_size_l0 or 0)
    magnification = _NOMINAL_MPP_AT_1X / mpp
    overlap = tile_px - (bag.stride_px or tile_px)
    width, height = bag.slide_size_px or (0, 0)
    folder = f"{magnification:g}x_{tile_px}px_{overlap}px_overlap"
    stated = {
        "patch_size": tile_px,
        "patch_size_level0": round(side),
        "level0_magnification": magnification * side / tile_px,
        "target_magnification": magnification,
        "overlap": overlap,
        "name": bag.slide_id,
        "savetodir": "",
        **({"level0_width": width, "level0_height": height} if width else {}),
    }
    coords = (bag.coords, (1, 2))
    patches = _write(target(folder, "patches", f"{bag.slide_id}_patches.h5"), {"coords": coords}, {"coords": stated})
    features = _write(
        target(folder, f"features_{bag.encoder}", f"{bag.slide_id}.h5"),
        {"features": (bag.features, (1, bag.feature_dim)), "coords": coords},
        {"features": {"name": bag.slide_id, "savetodir": "", "encoder": bag.encoder}, "coords": stated},
    )
    return [patches, features]


TARGETS: dict[str, Callable[[FeatureBag, Target, str], list[Path]]] = {
    OURS: to_ours,
    "clam": to_clam,
    "trident": to_trident,
}


def _write(
    path: Path, arrays: Mapping[str, tuple[Any, tuple[int, int]]], stated: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write resizable arrays, name -> (array, chunks), with attributes, name -> attributes."""
    with replaced(path) as temporary, h5py.File(temporary, "w") as file:
        for name, (array, chunks) in arrays.items():
            dataset = file.create_dataset(
                name, data=array, chunks=chunks, maxshape=(None, array.shape[1]), track_times=False
            )
            dataset.attrs.update(stated.get(name, {}))
    return path


def _require(bag: FeatureBag, *names: str) -> None:
    options = {
        "encoder": "--encoder NAME",
        "target_mpp": "--mpp",
        "tile_px": "--tile-px",
        "tile_size_l0": "--slide-mpp",
    }
    missing = [name for name in names if getattr(bag, name) is None]
    if missing:
        asked = ", ".join(options[name] for name in missing)
        raise BagError(f"{bag.path}: this {bag.layout} file does not state its {', '.join(missing)}; pass {asked}")
