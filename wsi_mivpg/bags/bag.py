"""One slide's features on disk, in this package's layout or another tool's: what is known of them, and their arrays.

It knows neither slides nor models. Which layout a file has is found in `layouts`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_mivpg import notebook_cards
from wsi_mivpg.bags.arrays import Index, Real, as_real, mapped_rows, read_rows
from wsi_mivpg.bags.provenance import PATCH_TOKENS, BagProvenance
from wsi_mivpg.bags.writing import UNKNOWN
from wsi_mivpg.errors import BagError

OURS = "wsi-mivpg"
CONTRACT = ("encoder", "encoder_weights_sha256", "feature_dim", "target_mpp", "tile_px")
"""What two bags must have in common to be read by one model."""
_MPP_TOLERANCE = 0.005  # tools that round a tile's side to whole pixels are off by up to 1 in 224


@dataclass(frozen=True)
class Places:
    """Where a file keeps its tiles' places.

    Attributes:
        key: the array's name in the file.
        columns: which of its columns are x and y.
        unit: "px" (level 0), "um", or "unstated" where the file does not say what its numbers count.
        to_px: what x and y are multiplied by to become level-0 px; None where that is not known.
    """

    key: str
    columns: tuple[int, int] = (0, 1)
    unit: str = "px"
    to_px: float | None = 1.0


@dataclass(frozen=True)
class Told:
    """What the caller knows of a file beyond what it states; see `FeatureBag.open`."""

    encoder: str | None = None
    slide_mpp: float | None = None
    target_mpp: float | None = None
    tile_px: int | None = None


@dataclass(frozen=True)
class FeatureBag:
    """A bag on disk; arrays are read when they are asked for. Open one with `FeatureBag.open`.

    What the file does not state is None. Lengths are in level-0 px (`_l0`, `_px` of the slide), pixels of the tile
    (`tile_px`) or microns per pixel (`mpp`).

    Attributes:
        path: the file.
        layout: "wsi-mivpg", or the tool that wrote it: "trident", "clam", "stamp", "atlaspatch", "histogpt",
            "wsinfer", "mopadi", "slidechat-csv"; "hdf5", "pt" and "npy" hold features and nothing else.
        slide_id: as the file says, else the file's name without suffix.
        n_tiles: may be 0.
        feature_dim: 0 in files that hold places but no features.
        features_key: the features' name in the file; None where there are none.
        places: where the tiles' places are; None where the file has none.
        provenance: how the bag was made; None unless this package wrote it.
    """

    path: Path
    layout: str
    slide_id: str
    n_tiles: int
    feature_dim: int
    features_key: str | None
    places: Places | None = None
    encoder: str | None = None
    encoder_weights_sha256: str | None = None
    slide_mpp: float | None = None
    target_mpp: float | None = None
    tile_px: int | None = None
    stride_px: int | None = None
    tile_size_l0: float | None = None
    slide_size_px: tuple[int, int] | None = None
    provenance: BagProvenance | None = None

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        encoder: str | None = None,
        slide_mpp: float | None = None,
        target_mpp: float | None = None,
        tile_px: int | None = None,
    ) -> "FeatureBag":
        """Recognise a file's layout and check that its arrays fit together; features are not read.

        Args:
            path: .h5 (or any HDF5), .pt, .npy, or SlideChat's .csv.
            encoder: which features to take where a file holds several (AtlasPatch); elsewhere what the encoder is
                called, for files that do not say or call it otherwise.
            slide_mpp: microns per pixel of level 0, for files that do not state it.
            target_mpp: microns per pixel of the tiles, likewise.
            tile_px: side of a tile in pixels at `target_mpp`, likewise.

        Raises:
            BagError: no such file, damaged, of no known layout, incomplete, arrays that do not fit together, several
                encoders and no choice, or a number that contradicts the file's.
        """
        from wsi_mivpg.bags.layouts import open_bag  # which makes bags, and so imports this module

        return open_bag(Path(path), Told(encoder, slide_mpp, target_mpp, tile_px))

    def __len__(self) -> int:
        return self.n_tiles

    @property
    def are_patch_tokens(self) -> bool:
        """Whether the instances are the patch tokens of one picture, which has no microns, and not tiles of a slide."""
        return self.provenance is not None and self.provenance.instances == PATCH_TOKENS

    @property
    def coords_known(self) -> bool:
        """Whether the tiles' places are known in level-0 px."""
        return self.places is not None and self.places.to_px is not None

    @property
    def features(self) -> Real:
        """(N, D) float16 or float32, as stored; wider types become float32."""
        return self.features_at(slice(None))

    def features_at(self, rows: Index) -> Real:
        """Return some rows, (n, D): a slice, or indices (n,) in any order; the others are not kept in memory."""
        if self.features_key is None:
            return np.empty((len(range(self.n_tiles)[rows]) if isinstance(rows, slice) else len(rows), 0), np.float16)
        return as_real(read_rows(self.path, self.features_key, rows))

    def features_view(self) -> Real:
        """(N, D): memory-mapped, read-only, where the file stores the rows in one piece (ours do); else read."""
        return self.features if self.features_key is None else as_real(mapped_rows(self.path, self.features_key))

    @property
    def coords(self) -> npt.NDArray[np.int64]:
        """(N, 2) int64, level-0 px, top left corners (x, y); -1 where `coords_known` is false."""
        if self.places is None or self.places.to_px is None:
            return np.full((self.n_tiles, 2), UNKNOWN, np.int64)
        stored = read_rows(self.path, self.places.key)[:, self.places.columns]
        if self.places.to_px == 1 and np.issubdtype(stored.dtype, np.integer):
            return stored.astype(np.int64, copy=False)
        return np.rint(stored * self.places.to_px).astype(np.int64)

    @property
    def stored_coords(self) -> npt.NDArray[Any] | None:
        """(N, k): the tiles' places as the file has them, in `places.unit`; None where it has none."""
        return None if self.places is None else read_rows(self.path, self.places.key)

    @property
    def tissue_fraction(self) -> npt.NDArray[np.float32]:
        """(N,) float32 in 0..1; NaN in other tools' files."""
        return self._ours("tissue_fraction", np.full(self.n_tiles, np.nan, np.float32))

    @property
    def grid(self) -> npt.NDArray[np.int32]:
        """(N, 2) int32: the tiles' (column, row); -1 where they lie in no grid, and in other tools' files."""
        return self._ours("grid", np.full((self.n_tiles, 2), UNKNOWN, np.int32))

    @property
    def unreadable(self) -> npt.NDArray[np.int64]:
        """(K, 2) int64, level-0 px: corners of planned tiles that could not be decoded and have no features."""
        return self._ours("unreadable", np.empty((0, 2), np.int64))

    @notebook_cards.safe
    def _repr_html_(self) -> str:
        known = self.target_mpp is not None and math.isfinite(self.target_mpp)
        tile = None if self.tile_px is None else f"{self.tile_px} px"
        facts = [
            ("features", f"{notebook_cards.thousands(len(self))} × {self.feature_dim}"),
            ("instances", PATCH_TOKENS if self.are_patch_tokens else None),
            ("encoder", self.encoder or "not stated"),
            ("tile", f"{tile or '?'} at {self.target_mpp:.4g} µm/px" if known else tile),
            ("slide", notebook_cards.size_text(self.slide_size_px) if self.slide_size_px else None),
            ("tiles that could not be read", len(self.unreadable) or None),
            ("layout", self.layout),
            ("file", self.path.name),
        ]
        return notebook_cards.card(self.slide_id, facts, self._map())

    def _map(self) -> notebook_cards.Picture | None:
        """Its tiles on their slide, coloured by tissue; None where their places are not known."""
        if not self.coords_known or not self.tile_size_l0 or not len(self):
            return None
        coords = self.coords
        reach = np.ceil(coords.max(axis=0) + self.tile_size_l0)
        size = (
            self.slide_size_px if self.slide_size_px and min(self.slide_size_px) > 0 else (int(reach[0]), int(reach[1]))
        )
        pixels = notebook_cards.tile_picture(coords, self.tile_size_l0, size, self.tissue_fraction)
        scale = max(size) / notebook_cards.PICTURE_PX
        return notebook_cards.Picture(pixels, None if self.slide_mpp is None else scale * self.slide_mpp)

    def _ours(self, name: str, otherwise: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return otherwise if self.provenance is None else read_rows(self.path, name)


def require_contract(bag: FeatureBag, names: tuple[str, ...] = CONTRACT) -> None:
    """Refuse a bag that does not state what a model must know of it; of a picture nobody knows microns per pixel.

    Raises:
        BagError: naming what is not stated and how to state it.
    """
    needless = ("target_mpp",) if bag.are_patch_tokens else ()
    unknown = [name for name in names if getattr(bag, name) is None and name not in needless]
    if unknown:
        raise BagError(
            f"{bag.path}: this {bag.layout} file does not state its {', '.join(unknown)}; extract the slide with this "
            f"package, or, if you know how it was made, say so: `wsi-mivpg bags convert {bag.path} --to {OURS} "
            "--out FOLDER --encoder NAME --mpp 0.5 --tile-px 224` (`wsi-mivpg encoders` lists the names)"
        )


def agree(one: object, two: object) -> bool:
    """Return whether two values of `CONTRACT` are the same; microns per pixel may differ by 0.5 %."""
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=_MPP_TOLERANCE)
    return one == two
