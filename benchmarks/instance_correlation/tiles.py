"""Tile features by tissue: real tiles (crc5) or rendered ones, under four stains, encoded once and kept in the cache.

A tile's feature under a slide's own stain is a mixture of its features under the four; nothing here knows cases.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_mivpg.atomic import canonical_hash, replaced
from wsi_mivpg.cache import cache_dir
from wsi_mivpg.cohorts.rendered_tissue import Stain, render
from wsi_mivpg.cohorts.tile_folder import open_tile_folder
from wsi_mivpg.errors import CohortError

from .tissue_maps import ROLES

Float = npt.NDArray[np.float32]
RGB = npt.NDArray[np.uint8]

ENCODER = "efficientnet-lite0"
WIDTH = 128
"""Principal components that are kept of a feature; computed from training tiles alone."""
SPLITS = ("train", "test")
STAINS = np.array([[0.80, 0.72, 0.80], [1.25, 1.25, 1.12], [0.80, 1.00, 1.25], [1.25, 1.00, 0.80]])
"""Optical density of red, green and blue, relative to the tile's own: the corners between which slides are stained."""
CRC5 = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiles" / "crc5"
WITHIN = "crc5-within"
"""All tiles of crc5, three quarters for training cases and a quarter for test cases: without the shift that there is
between crc5's own two parts."""
CLASSES = {
    "crc5": dict(zip(ROLES, ("H", "AC", "V", "T", "S"), strict=True)),
    "rendered": dict(zip(ROLES, ("stroma", "glandular_tumour", "necrosis", "lymphoid", "parenchyma"), strict=True)),
}
SOURCES = (WITHIN, *CLASSES)
_RENDERED_STAIN = Stain(np.array([0.605, 0.71, 0.35]), np.array([0.16, 0.88, 0.405]), 1.0, 1.0)
_RENDERED_TILES = {"train": 160, "test": 80}
_RENDERED_SIDE_PX, _TILE_PX = 896, 224  # at 0.25 µm per pixel; tiles are at 0.5


@dataclass(frozen=True)
class TileFeatures:
    """Tiles of one split.

    Attributes:
        features: float32 (N, 4, WIDTH): each tile under each of `STAINS`.
        colours: float32 (N, 4, 6): mean and deviation of its red, green and blue, likewise.
        roles: int64 (N,): its tissue, as a number of `ROLES`.
        names: of the tiles.
    """

    features: Float
    colours: Float
    roles: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def of(self, role: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the tiles of a tissue."""
        return np.flatnonzero(self.roles == role)


def stained(tile: RGB, stain: npt.NDArray[np.float64]) -> RGB:
    """Return uint8 (H, W, 3) with the optical density of each channel multiplied."""
    levels = np.maximum(np.arange(256), 1) / 255
    tables = (255 * levels[:, None] ** stain).round().astype(np.uint8)
    return np.stack([tables[tile[..., channel], channel] for channel in range(3)], axis=-1)


def tile_features(source: str, folder: Path = CRC5, at_most: int | None = None) -> dict[str, TileFeatures]:
    """Return the features of a source's training and test tiles; the first call encodes them.

    Args:
        source: one of `SOURCES`.
        folder: where crc5 is, with train and test folders.
        at_most: tiles of a tissue and split, for a quick look.

    Raises:
        CohortError: crc5 is not there, or lacks a class.
    """
    if source != "rendered" and not folder.is_dir():
        raise CohortError(f"the crc5 tiles are not at {folder}; give --tiles, or --source rendered")
    raw = _kept(source, folder, at_most) if source != WITHIN else _divided(_kept("crc5", folder, at_most))
    train = raw["train"][0]
    mean, axes = _principal_components(train.reshape(-1, train.shape[-1]))
    reduced = {split: (part[0] - mean) @ axes for split, part in raw.items()}
    scale = reduced["train"].std()
    return {split: TileFeatures((reduced[split] / scale).astype(np.float32), *raw[split][1:]) for split in SPLITS}


def _principal_components(features: Float) -> tuple[Float, Float]:
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return mean.astype(np.float32), vectors[:, ::-1][:, :WIDTH].astype(np.float32)


Part = tuple[Float, Float, npt.NDArray[np.int64], tuple[str, ...]]
Raw = dict[str, Part]


def _divided(parts: Raw) -> Raw:
    """Put both parts together and give every fourth tile to the test cases."""
    features, colours, roles = (np.concatenate([part[place] for part in parts.values()]) for place in range(3))
    names = [name for part in parts.values() for name in part[3]]
    numbers = np.arange(len(roles))
    rows = {"train": numbers[numbers % 4 != 3], "test": numbers[numbers % 4 == 3]}
    return {
        split: (features[own], colours[own], roles[own], tuple(names[row] for row in own))
        for split, own in rows.items()
    }


def _kept(source: str, folder: Path, at_most: int | None) -> Raw:
    """Return per split features (N, 4, D), colours, roles and names; encoded if they are not in the cache."""
    files = {split: _crc5_files(folder, split, at_most) for split in SPLITS} if source == "crc5" else {}
    names = {split: [path.name for path, _ in found] for split, found in files.items()}
    made_of = [
        source,
        ENCODER,
        STAINS.tolist(),
        CLASSES[source],
        names or _RENDERED_TILES,
        *([at_most] if at_most else []),
        1,
    ]
    path = cache_dir() / "instance_correlation" / f"{source}-{canonical_hash(made_of)[:12]}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for split in SPLITS:
            tiles = _opened(files[split]) if files else _rendered(split, at_most or _RENDERED_TILES[split])
            for name, array in zip(("features", "colours", "roles", "names"), _encoded(tiles), strict=True):
                arrays[f"{split}_{name}"] = array
        with replaced(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)
    with np.load(path) as stored:
        return {
            split: (
                stored[f"{split}_features"].astype(np.float32),
                stored[f"{split}_colours"],
                stored[f"{split}_roles"],
                tuple(json.loads(str(stored[f"{split}_names"]))),
            )
            for split in SPLITS
        }


def _crc5_files(folder: Path, split: str, at_most: int | None) -> list[tuple[Path, int]]:
    found = open_tile_folder(str(folder), split, {name: role for role, name in CLASSES["crc5"].items()})
    return [(path, number) for number, role in enumerate(ROLES, 1) for path in found.labels[role][:at_most]]


def _opened(files: list[tuple[Path, int]]) -> Iterator[tuple[str, RGB, int]]:
    for path, role in files:
        with Image.open(path) as image:
            yield f"{path.parent.parent.name}/{path.parent.name}/{path.name}", np.asarray(image.convert("RGB")), role


def _rendered(split: str, count: int) -> Iterator[tuple[str, RGB, int]]:
    """Cut tiles from rendered tissue; training and test tiles come of different drawings."""
    per_drawing = (_RENDERED_SIDE_PX // 2 // _TILE_PX) ** 2
    for number, role in enumerate(ROLES, 1):
        for drawing in range(count // per_drawing):
            rng = np.random.default_rng([SPLITS.index(split), number, drawing])
            pixels = render(CLASSES["rendered"][role], _RENDERED_SIDE_PX, _RENDERED_STAIN, rng)
            halved = np.asarray(Image.fromarray(pixels).resize((_RENDERED_SIDE_PX // 2,) * 2, Image.Resampling.BOX))
            for place in range(per_drawing):
                top, left = (_TILE_PX * step for step in divmod(place, _RENDERED_SIDE_PX // 2 // _TILE_PX))
                tile = halved[top : top + _TILE_PX, left : left + _TILE_PX]
                yield f"{split}/{role}/{drawing}-{place}", tile, number


def _encoded(
    tiles: Iterator[tuple[str, RGB, int]],
) -> tuple[npt.NDArray[np.float16], Float, npt.NDArray[np.int64], str]:
    from wsi_mivpg.encoders.load import load_encoder
    from wsi_mivpg.evaluation.colour import colour_statistics

    encoder = load_encoder(ENCODER, precision="fp32")
    features, colours, roles, names = [], [], [], []
    for name, tile, role in tiles:
        four = np.stack([stained(tile, stain) for stain in STAINS])
        features.append(encoder.encode(four))
        colours.append(np.stack([colour_statistics(one) for one in four]).astype(np.float32))
        roles.append(role)
        names.append(name)
    return np.stack(features), np.stack(colours), np.array(roles, np.int64), json.dumps(names)
