"""Writes bags as other tools write them: names, shapes, types, chunks and attributes of their own code.

The facts are listed in docs/bag-format.md. Each function takes features float32 (N, D) and level-0 corners int64 (N, 2)
and returns the file's path under `folder`.
"""

from pathlib import Path

import h5py
import numpy as np

SLIDE_PX = (40_000, 30_000)
SLIDE_MPP = 0.25
TILE_PX = 256
SIDE_L0 = 512  # 256 px at 0.5 microns per pixel on a slide of 0.25


def trident(folder: Path, features: np.ndarray, coords: np.ndarray, encoder: str = "uni_v1") -> Path:
    """Write TRIDENT's features, float16, one row a chunk, resizable."""
    path = folder / "20x_256px_0px_overlap" / f"features_{encoder}" / "slide.h5"
    path.parent.mkdir(parents=True)
    stated = trident_attributes()
    with h5py.File(path, "w") as file:
        for name, data in (("features", features.astype(np.float16)), ("coords", coords)):
            shape = (None, *data.shape[1:])
            file.create_dataset(name, data=data, maxshape=shape, chunks=(1, *data.shape[1:]))
        file["features"].attrs.update({"name": "slide", "savetodir": str(path.parent), "encoder": encoder})
        file["coords"].attrs.update(stated)
    return path


def trident_places(folder: Path, coords: np.ndarray) -> Path:
    """Write TRIDENT's coordinates alone."""
    path = folder / "20x_256px_0px_overlap" / "patches" / "slide_patches.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(1, 2)).attrs.update(trident_attributes())
    return path


def trident_attributes() -> dict[str, object]:
    """Return what TRIDENT states on `coords`."""
    return {
        "patch_size": TILE_PX,
        "patch_size_level0": SIDE_L0,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": "slide",
        "savetodir": "/somewhere",
        "level0_width": SLIDE_PX[0],
        "level0_height": SLIDE_PX[1],
    }


def clam(folder: Path, features: np.ndarray, coords: np.ndarray) -> Path:
    """Write CLAM's features: float32 and int32, no attributes."""
    path = folder / "h5_files" / "slide.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        for name, data in (("features", features.astype(np.float32)), ("coords", coords.astype(np.int32))):
            file.create_dataset(name, data=data, maxshape=(None, *data.shape[1:]), chunks=(1, *data.shape[1:]))
    return path


def clam_places(folder: Path, coords: np.ndarray, level: int = 1, downsample: float = 2.0) -> Path:
    """Write CLAM's coordinates, whose `patch_size` counts pixels of `patch_level`."""
    path = folder / "patches" / "slide.h5"
    path.parent.mkdir(parents=True)
    size = tuple(int(length / downsample) for length in SLIDE_PX)
    with h5py.File(path, "w") as file:
        coordinates = file.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(32, 2))
        coordinates.attrs.update(
            {
                "patch_size": 256,
                "patch_level": level,
                "downsample": (downsample, downsample),
                "downsampled_level_dim": size,
                "level_dim": size,
                "name": "slide",
                "save_path": str(path.parent),
            }
        )
    return path


def stamp(folder: Path, features: np.ndarray, coords: np.ndarray) -> Path:
    """Write STAMP's features, float16, with coordinates in microns, float32."""
    path = folder / "uni-1234abcd" / "slide.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["coords"] = (coords * SLIDE_MPP).astype(np.float32)
        file["feats"] = features.astype(np.float16)
        file.attrs.update(
            {
                "stamp_version": "2.3.0",
                "extractor": "mahmood-uni",
                "unit": "um",
                "tile_size_um": SIDE_L0 * SLIDE_MPP,
                "tile_size_px": TILE_PX,
                "code_hash": "1234abcd",
                "feat_type": "tile",
            }
        )
    return path


def atlaspatch(folder: Path, features: dict[str, np.ndarray], coords: np.ndarray) -> Path:
    """Write AtlasPatch's file: several encoders in one, attributes on the file."""
    path = folder / "patches" / "slide.h5"
    path.parent.mkdir(parents=True)
    places = np.column_stack([coords, np.full((len(coords), 2), SIDE_L0), np.zeros(len(coords))]).astype(np.int32)
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=places, maxshape=(None, 5), chunks=(8192, 5))
        file.create_dataset("passports", data=np.full(len(coords), b"slide__x0", "S160"), maxshape=(None,))
        for name, array in features.items():
            data = array.astype(np.float32)
            file.create_dataset(
                f"features/{name}", data=data, maxshape=(None, data.shape[1]), chunks=(32, data.shape[1])
            )
        stated = trident_attributes()
        del stated["name"], stated["savetodir"]
        file.attrs.update(stated)
        file.attrs.update({"wsi_path": "/slides/slide.svs", "num_patches": len(coords), "mpp": SLIDE_MPP})
        file.attrs.update({"vendor": "aperio", "creation_date": "2026-01-01T00:00:00+00:00", "passport_version": 2})
    return path


def histogpt(folder: Path, features: np.ndarray, coords: np.ndarray, scenes: int = 1, shrunk: float = 2.0) -> Path:
    """Write HistoGPT's file: (scene, row, column) in pixels of the scene shrunken by a factor in the folder's name."""
    path = folder / "h5_files" / f"256px_ctranspath_1.0mpp_{shrunk}xdown_normal" / "slide.h5"
    path.parent.mkdir(parents=True)
    scene = np.arange(len(coords)) % scenes
    with h5py.File(path, "w") as file:
        file["coords"] = np.column_stack([scene, coords[:, 1] / shrunk, coords[:, 0] / shrunk]).astype(np.float64)
        file["feats"] = features.astype(np.float64)
        file["model_name"] = "ctranspath"
        file["slide_sizes"] = [SLIDE_PX] * scenes
    return path


def wsinfer(folder: Path, coords: np.ndarray) -> Path:
    """Write wsinfer's coordinates, gzipped; `patch_size` counts level-0 pixels."""
    path = folder / "patches" / "slide.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        stated = {"patch_size": SIDE_L0, "patch_level": 0, "patch_spacing_um_px": 0.5}
        file.create_dataset("/coords", data=coords, compression="gzip").attrs.update(stated)
    return path


def mopadi(folder: Path, features: np.ndarray, coords: np.ndarray) -> Path:
    """Write the older of MoPaDi's two layouts."""
    path = folder / "TCGA-XX-0000-01Z-00-DX1" / "features.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["feats"] = features.astype(np.float32)
        file["coords"] = coords
    return path


def mopadi_named(folder: Path, features: np.ndarray) -> Path:
    """Write the newer of MoPaDi's two layouts: tiles by file name."""
    path = folder / "TCGA-XX-0001-01Z-00-DX1" / "features.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["features"] = features.astype(np.float32)
        names = [f"0_0_{index}_506.jpg" for index in range(len(features))]
        file.create_dataset("metadata", data=names, dtype=h5py.string_dtype())
    return path


def slidechat(folder: Path, features: np.ndarray, coords: np.ndarray) -> Path:
    """Write SlideChat's table: 512 feature columns, then places."""
    path = folder / "TCGA-XX-0002-01Z-00-DX1.csv"
    folder.mkdir(parents=True, exist_ok=True)
    header = ",".join([*map(str, range(512)), "x", "y"])
    np.savetxt(path, np.column_stack([features, coords]), "%.9g", ",", header=header, comments="")
    return path
