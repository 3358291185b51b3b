"""One grid of equal tiles over a slide, at a resolution in microns per pixel.

Pure geometry: it knows no files and no pixels; tissue enters as a function from boxes to fractions.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from wsi_mivpg import notebook_cards
from wsi_mivpg.errors import ResolutionError

Coverage = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float32]]
Edge = Literal["drop", "pad"]

UPSAMPLING_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class TilePlan:
    """The tiles to read of one slide, in rows from the top left, as files store their own tiles.

    Two plans are equal, and have one hash, where all of their fields are equal; the arrays cannot be written.

    Attributes:
        target_mpp: microns per pixel of the tiles.
        tile_px: side of a tile in pixels at `target_mpp`.
        stride_px: from one tile to the next, in the same pixels; less than `tile_px` makes tiles overlap.
        edge: what became of tiles that pass the slide's right and lower edge: "drop", or "pad" (white outside).
        slide_size_px: (width, height) of level 0.
        slide_mpp: microns per pixel of level 0.
        coords: (N, 2) int64, level-0 px, the tiles' top left corners (x, y).
        grid: (N, 2) int32, (column, row).
        tile_size_l0: side of a tile in level-0 px, a float that is never truncated.
        tissue_fraction: (N,) float32 in 0..1; all 1 when planned without a coverage function.
        min_tissue: the least fraction that was kept.
    """

    target_mpp: float
    tile_px: int
    stride_px: int
    edge: Edge
    slide_size_px: tuple[int, int]
    slide_mpp: float
    coords: npt.NDArray[np.int64]
    grid: npt.NDArray[np.int32]
    tile_size_l0: float
    tissue_fraction: npt.NDArray[np.float32]
    min_tissue: float

    def __len__(self) -> int:
        return len(self.coords)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TilePlan) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """The sha256 of all fields, in hexadecimal."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            content = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            digest.update(f"{field.name} {len(content)} ".encode() + content)
        return digest.hexdigest()

    @notebook_cards.safe
    def _repr_html_(self) -> str:
        overlap_px = self.tile_px - self.stride_px
        facts = [
            ("tile", f"{self.tile_px} px at {self.target_mpp:g} µm/px, {self.tile_size_l0:.4g} px of level 0"),
            ("overlap", f"{overlap_px} px" if overlap_px > 0 else None),
            ("gap", f"{-overlap_px} px" if overlap_px < 0 else None),
            ("least tissue", f"{self.min_tissue:.0%}"),
            ("slide", f"{notebook_cards.size_text(self.slide_size_px)}, {self.slide_mpp:.4g} µm/px"),
        ]
        pixels = notebook_cards.tile_picture(self.coords, self.tile_size_l0, self.slide_size_px, self.tissue_fraction)
        picture = notebook_cards.Picture(pixels, max(self.slide_size_px) / notebook_cards.PICTURE_PX * self.slide_mpp)
        return notebook_cards.card(f"Plan of {notebook_cards.thousands(len(self))} tiles", facts, picture)


def plan_tiles(
    slide_size_px: tuple[int, int],
    slide_mpp: float,
    *,
    target_mpp: float,
    tile_px: int,
    stride_px: int | None = None,
    edge: Edge = "drop",
    coverage: Coverage | None = None,
    min_tissue: float = 0.25,
) -> TilePlan:
    """Lay one grid anchored at (0, 0) over a slide and keep the tiles with enough tissue.

    Column c starts at `rint(c * stride_l0)`, so rounding never accumulates: every tile lies within half a
    level-0 pixel of its true place.

    Args:
        slide_size_px: (width, height) of level 0.
        slide_mpp: microns per pixel of level 0.
        target_mpp: microns per pixel of the tiles.
        tile_px: side of a tile in pixels.
        stride_px: from one tile to the next in pixels at `target_mpp`; default `tile_px`.
        edge: "drop" keeps only tiles that lie wholly inside the slide; "pad" also those that pass its right or lower
            edge, so that every pixel of the slide is in a tile.
        coverage: maps float64[N, 4] level-0 boxes (x, y, width, height) to tissue fractions float32[N].
        min_tissue: tiles with a smaller fraction are left out.

    Raises:
        ResolutionError: the slide is coarser than `target_mpp`.
        ValueError: a tile or stride of less than one pixel.
    """
    stride_px = tile_px if stride_px is None else stride_px
    if tile_px < 1 or stride_px < 1:
        raise ValueError(f"tiles of {tile_px} px every {stride_px} px; both must be at least 1")
    if target_mpp < slide_mpp * (1 - UPSAMPLING_TOLERANCE):
        raise ResolutionError(
            f"the slide has {slide_mpp:g} microns per pixel, coarser than the {target_mpp:g} that the "
            "encoder needs; use a scan of higher magnification, or correct a wrong value with --mpp"
        )
    scale = target_mpp / slide_mpp
    size_l0, stride_l0 = tile_px * scale, stride_px * scale
    columns, rows = (_starts(side, size_l0, stride_l0, edge) for side in slide_size_px)
    row, column = np.meshgrid(np.arange(len(rows)), np.arange(len(columns)), indexing="ij")
    grid = np.stack([column.ravel(), row.ravel()], axis=1).astype(np.int32)
    coords = np.stack([columns[grid[:, 0]], rows[grid[:, 1]]], axis=1)
    fraction = np.ones(len(coords), dtype=np.float32)
    if coverage is not None:
        boxes = np.concatenate([coords.astype(np.float64), np.full((len(coords), 2), size_l0)], axis=1)
        fraction = np.asarray(coverage(boxes), dtype=np.float32)
    kept = fraction >= min_tissue
    coords, grid, fraction = coords[kept], grid[kept], fraction[kept]
    for array in (coords, grid, fraction):
        array.flags.writeable = False
    return TilePlan(
        target_mpp=target_mpp,
        tile_px=tile_px,
        stride_px=stride_px,
        edge=edge,
        slide_size_px=slide_size_px,
        slide_mpp=slide_mpp,
        coords=coords,
        grid=grid,
        tile_size_l0=size_l0,
        tissue_fraction=fraction,
        min_tissue=min_tissue,
    )


def _starts(side_px: int, size_l0: float, stride_l0: float, edge: Edge) -> npt.NDArray[np.int64]:
    """Return the rounded starts of all tiles along a side, int64[K]."""
    starts: npt.NDArray[np.int64] = np.rint(np.arange(int(side_px / stride_l0) + 1) * stride_l0).astype(np.int64)
    if edge == "drop":
        needed = starts + size_l0 <= side_px + 1e-6
    else:
        # The first tile that reaches the end is the last one that is needed.
        covered = np.concatenate([[0.0], starts[:-1] + size_l0])
        needed = (starts < side_px) & ((covered < side_px - 1e-6) | (starts == 0))
    kept: npt.NDArray[np.int64] = starts[needed]
    return kept
