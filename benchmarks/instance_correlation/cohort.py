"""Virtual cases as bags: a map of tissues whose cells draw tile features of their tissue, under their slide's stain.

Training cases draw from training tiles, test cases from test tiles. No slide is ever painted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from wsi_mivpg.captioner import CaseBags

from .tiles import STAINS, Float, TileFeatures
from .tissue_maps import Index, Truth, draw_maps, measure_truth, plans
from .wording import compose_report, stated

LEAST_STAIN_DISTANCE = 0.6
"""Of a case's two slides: half the sum of the differences of their weights of `STAINS`, 0 to 1."""
TILE_NOISE = 0.15
"""Deviation of the noise on a tile's feature, in units of the deviation of all features."""
_SEEDS = {"train": 1, "test": 2}


@dataclass(frozen=True, eq=False)
class VirtualCase:
    """A case with what is true of it.

    Attributes:
        bags: features float16 (M, D), both slides' tiles row by row, with their cells.
        maps: the two slides, by cell.
        tiles: int64 (M,): the numbers of the tiles that were drawn.
        truth: measured on the maps.
        report: what a right one says.
        colours: float64 (6,): mean and deviation of red, green and blue of the whole case.
    """

    bags: CaseBags
    maps: tuple[Index, Index]
    tiles: npt.NDArray[np.int64]
    truth: Truth
    report: str
    colours: npt.NDArray[np.float64]


def compose(
    source: str, tiles: TileFeatures, split: str, count: int, seed: int = 0, cell_side_tiles: int = 1
) -> list[VirtualCase]:
    """Compose cases; the first n of a cohort are the same whatever its size is.

    Args:
        source: whose phrases reports are written in.
        tiles: of this split.
        split: "train" or "test".
        count: cases.
        seed: of the cohort.
        cell_side_tiles: tiles along each side of a map's cell: 2 makes bags of four times as many from the same maps.
    """
    drawn = plans(count, np.random.default_rng([seed, _SEEDS[split]]))
    cases = []
    for number, plan in enumerate(drawn):
        rng = np.random.default_rng([seed, _SEEDS[split], number])
        maps = draw_maps(plan, rng)
        truth = measure_truth(maps)
        cell = np.ones((cell_side_tiles, cell_side_tiles), np.uint8)
        grids = [np.kron(index, cell) for index in maps]
        chosen, stains = _draw_tiles(grids, tiles, rng)
        features = np.einsum("mk,mkd->md", stains, tiles.features[chosen])
        features += rng.normal(0, TILE_NOISE, features.shape)
        colours = np.einsum("mk,mkd->md", stains, tiles.colours[chosen])
        bags = CaseBags(
            f"{source}-{split}-{number:04d}",
            torch.from_numpy(features.astype(np.float16)),
            tuple(int((grid > 0).sum()) for grid in grids),
            torch.from_numpy(cells_of(grids)),
        )
        report = compose_report(stated(truth), source)
        cases.append(VirtualCase(bags, maps, chosen, truth, report, _colours_of(colours)))
    return cases


def cells_of(grids: Sequence[Index]) -> npt.NDArray[np.int64]:
    """Return int64 (M, 3): column, row and slide of all tiles, row by row as a slide is read."""
    parts = []
    for slide, index in enumerate(grids):
        rows, columns = np.nonzero(index)
        parts.append(np.stack([columns, rows, np.full_like(rows, slide)], axis=1))
    return np.concatenate(parts).astype(np.int64)


def _draw_tiles(
    grids: Sequence[Index], tiles: TileFeatures, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], Float]:
    """Return a tile number for each instance, and its slide's stain, float32 (M, 4), as weights of `STAINS`."""
    chosen, stains = [], []
    for index, stain in zip(grids, _two_stains(rng), strict=True):
        roles = index[index > 0]
        numbers = np.zeros(len(roles), np.int64)
        for role in np.unique(roles):
            here = roles == role
            numbers[here] = rng.choice(tiles.of(int(role)), int(here.sum()))
        chosen.append(numbers)
        stains.append(np.tile(stain, (len(roles), 1)))
    return np.concatenate(chosen), np.concatenate(stains).astype(np.float32)


def _two_stains(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return float64 (2, 4), the slides' weights of `STAINS`."""
    while True:
        stains = rng.dirichlet(np.full(len(STAINS), 0.7), 2)
        if np.abs(stains[0] - stains[1]).sum() / 2 >= LEAST_STAIN_DISTANCE:
            return stains


def _colours_of(colours: Float) -> npt.NDArray[np.float64]:
    """Mean and deviation of all pixels from those of the tiles, float (M, 6): by the law of total variance."""
    means, deviations = colours[:, :3].astype(np.float64), colours[:, 3:].astype(np.float64)
    total = np.sqrt((deviations**2).mean(axis=0) + means.var(axis=0))
    return np.concatenate([means.mean(axis=0), total])
