"""Real labelled tiles as a source of tissue texture: a CSV or a folder per class.

Train, val and test tiles are kept apart by the source's own split.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_mivpg.errors import CohortError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}


@dataclass(frozen=True)
class TileFolder:
    """Paths of real tiles by tissue label, of one split."""

    labels: dict[str, tuple[Path, ...]]

    def texture(
        self,
        label: str,
        tiles_wide: int,
        enlarge: float,
        od_gain: npt.NDArray[np.float64],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.uint8]:
        """Return a mosaic uint8[S, S, 3] of random tiles, turned and flipped, enlarged `enlarge` times.

        `od_gain` float[3] scales the optical density of each channel (a slide's own stain).
        """
        paths = self.labels[label]
        chosen = [paths[int(i)] for i in rng.integers(len(paths), size=tiles_wide**2)]
        tiles = [self._tile(path, enlarge, rng) for path in chosen]
        rows = [np.concatenate(tiles[i : i + tiles_wide], axis=1) for i in range(0, len(tiles), tiles_wide)]
        mosaic = np.concatenate(rows, axis=0)
        levels = np.arange(256, dtype=np.float64) / 255
        table = (255 * np.maximum(levels, 1 / 255)[:, None] ** od_gain).round().astype(np.uint8)
        return np.stack([table[mosaic[..., channel], channel] for channel in range(3)], axis=-1)

    @staticmethod
    def _tile(path: Path, enlarge: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        with Image.open(path) as image:
            side_px = round(min(image.size) * enlarge)
            rgb = image.convert("RGB").resize((side_px, side_px), Image.Resampling.BICUBIC)
        turned = np.rot90(np.asarray(rgb), int(rng.integers(4)))
        return turned[:, ::-1] if rng.random() < 0.5 else turned


def open_tile_folder(source: str, split: str, classes: dict[str, str]) -> TileFolder:
    """Return the tiles of one split from a CSV (columns path,class,split) or a folder ``split/class/*``.

    Raises:
        CohortError: the source is missing, or a class has no tile in this split.
    """
    root = Path(source)
    if not root.exists():
        raise CohortError(f"tile source {root} does not exist; set the cohort's `source` to a CSV or a folder")
    found: dict[str, list[Path]] = {label: [] for label in classes.values()}
    if root.is_file():
        with root.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                if row["split"] == split and row["class"] in classes:
                    found[classes[row["class"]]].append(root.parent / row["path"])
    else:
        for name, label in classes.items():
            folder = root / split / name
            found[label] += sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES)
    for label, paths in found.items():
        if not paths:
            raise CohortError(f"{root} has no tile of {label!r} in split {split!r}; see `classes` in the recipe")
    return TileFolder({label: tuple(sorted(paths)) for label, paths in found.items()})
