"""What the engine reads of one input: what its bag will say, and its tiles. Slides and folders of patches.

Opening and planning only: tiles are read by the engine, bags written by `run`.
"""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import ResolutionError, SlideError
from wsi_mivpg.extraction.inputs import SlideInput
from wsi_mivpg.extraction.settings import SlideSettings
from wsi_mivpg.slides import Slide
from wsi_mivpg.slides.readers.base import Pixels
from wsi_mivpg.slides.readers.patch_folder import PatchFolder, read_patch
from wsi_mivpg.slides.resolution import checked_mpp
from wsi_mivpg.tiling import plan_tiles

_SAME_MPP = 0.02
"""Share by which patches' microns per pixel may differ from what was asked."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of one input, in the order in which they are read.

    Attributes:
        coords: (N, 2) int64, level-0 px; -1 where places are unknown.
        grid: (N, 2) int32, (column, row); -1 where places are unknown.
        tissue_fraction: (N,) float32.
        digest: of the plan, or "".
        read: gives uint8 (side, side, 3) of a tile, in the memory that it is handed or not; SlideError where it cannot.
    """

    coords: npt.NDArray[np.int64]
    grid: npt.NDArray[np.int32]
    tissue_fraction: npt.NDArray[np.float32]
    digest: str
    read: Callable[[int, Pixels], Pixels]

    def __len__(self) -> int:
        return len(self.coords)


@dataclass(frozen=True, eq=False)
class Source:
    """One input that is open.

    Attributes:
        given: the input.
        provenance: the fields of `BagProvenance` that the input and the settings decide, without the encoder's.
        plan: finds the tissue and the tiles; raises a WsiMivpgError where that cannot be done.
        is_unchanged: whether the file is still there and the same as when it was opened.
        close: to be called once, after the last read.
    """

    given: SlideInput
    provenance: dict[str, Any]
    plan: Callable[[], Tiles]
    is_unchanged: Callable[[], bool]
    close: Callable[[], None]


def open_source(given: SlideInput, settings: SlideSettings, tile_px: int, mpp: float) -> Source:
    """Open an input whose tiles shall have `tile_px` pixels of `mpp` microns each.

    Raises:
        SlideError, ResolutionError: it cannot be opened, or its microns per pixel are missing or do not fit.
        TissueError: the tissue's file is not there.
    """
    if given.patches is None:
        return _open_slide(given, settings, tile_px, mpp)
    return _open_patches(given, given.patches, settings, tile_px, mpp)


def _open_slide(given: SlideInput, settings: SlideSettings, tile_px: int, mpp: float) -> Source:
    seen = stamp(given.source)
    with ExitStack() as opening:
        slide = opening.enter_context(settings.open(given.source, given.mpp))
        provenance = _slide_provenance(given, slide, settings, tile_px, mpp)
        held = opening.pop_all()

    def plan() -> Tiles:
        try:
            tiles = plan_tiles(
                slide.size_px,
                slide.mpp,
                target_mpp=mpp,
                tile_px=tile_px,
                coverage=settings.find_tissue(slide, given.slide_id).coverage,
                min_tissue=settings.min_tissue,
            )
        except ResolutionError as error:
            raise ResolutionError(f"{slide.source}: {error}") from error
        held.enter_context(slide.expecting(tiles.coords, tile_px, mpp))

        def read(index: int, out: Pixels) -> Pixels:
            x, y = tiles.coords[index]
            return slide.read_region(float(x), float(y), tile_px, mpp, out=out)

        return Tiles(tiles.coords, tiles.grid, tiles.tissue_fraction, tiles.digest, read)

    return Source(given, provenance, plan, lambda: stamp(given.source) == seen, held.close)


def _slide_provenance(
    given: SlideInput, slide: Slide, settings: SlideSettings, tile_px: int, mpp: float
) -> dict[str, Any]:
    uids = {} if slide.dicom is None else {f"dicom_{name}_uid": uid for name, uid in slide.dicom._asdict().items()}
    return {
        **uids,
        "slide_id": given.slide_id,
        "case_id": given.case_id,
        "slide_path": slide.path.name,
        "slide_fingerprint": slide.fingerprint(),
        "slide_width_px": slide.size_px[0],
        "slide_height_px": slide.size_px[1],
        "slide_mpp": slide.mpp,
        "mpp_source": slide.mpp_source,
        "reader": slide.reader,
        "target_mpp": mpp,
        "tile_px": tile_px,
        "stride_px": tile_px,
        "tile_size_l0": tile_px * mpp / slide.mpp,
        "min_tissue": settings.min_tissue,
        "tissue_method": settings.tissue_name(given.slide_id),
        "coords_known": True,
    }


def _open_patches(given: SlideInput, patches: PatchFolder, settings: SlideSettings, tile_px: int, mpp: float) -> Source:
    """Open a folder of patches; each is taken whole and shrunk to `tile_px`.

    Where their microns per pixel are stated, the shrunk patch must have those that are asked; where nobody knows them,
    the bag says so (NaN).
    """
    first_px = _side_px(patches.paths[0])
    stated = given.mpp or settings.mpp_of.get(given.slide_id, settings.mpp)
    if stated is not None:
        stated = checked_mpp(given.shown, (stated, stated))
        shrunk = stated * first_px / tile_px
        if abs(shrunk / mpp - 1) > _SAME_MPP:
            raise ResolutionError(
                f"{patches.paths[0]}: {first_px} px of {stated:g} microns, shrunk to {tile_px} px, are {shrunk:.4g} "
                f"microns per pixel, not the {mpp:g} that are asked; cut patches of {mpp * tile_px / stated:.0f} px, "
                "or state --tile-mpp and --force"
            )
    unknown = float("nan")
    provenance = {
        "slide_id": given.slide_id,
        "case_id": given.case_id,
        "slide_path": Path(given.source).name,
        "slide_fingerprint": _patches_fingerprint(patches),
        "slide_width_px": 0,
        "slide_height_px": 0,
        "slide_mpp": unknown if stated is None else stated,
        "mpp_source": "unknown" if stated is None else "user",
        "reader": "patches",
        "target_mpp": unknown if stated is None else mpp,
        "tile_px": tile_px,
        "stride_px": tile_px,
        "tile_size_l0": unknown if stated is None else float(first_px),
        "min_tissue": 0.0,
        "tissue_method": "none",
        "coords_known": False,
    }

    def read(index: int, out: Pixels) -> Pixels:
        return read_patch(patches.paths[index], tile_px, out)

    def plan() -> Tiles:
        count = len(patches.paths)
        nowhere = np.full((count, 2), -1)
        return Tiles(nowhere.astype(np.int64), nowhere.astype(np.int32), np.ones(count, np.float32), "", read)

    return Source(given, provenance, plan, lambda: Path(given.source).is_dir(), lambda: None)


def _side_px(patch: Path) -> int:
    from PIL import Image

    try:
        with Image.open(patch) as picture:  # its header only
            return int(picture.size[0])
    except (OSError, Image.DecompressionBombError) as error:
        raise SlideError(f"{patch}: the patch cannot be read: {error}; leave it out or copy it again") from error


def _patches_fingerprint(patches: PatchFolder) -> str:
    """Return the sha256 of all patches' names and sizes."""
    digest = hashlib.sha256()
    for path in patches.paths:
        try:
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        except OSError as error:
            raise SlideError(f"{path}: it cannot be read any more ({error}); check the access to it") from error
    return digest.hexdigest()


def stamp(source: Path | str) -> tuple[int, int] | None:
    """Return what changes when a file does, None for an address, (-1, -1) where there is no file."""
    if isinstance(source, str):
        return None
    try:
        found = source.stat()
    except OSError:
        return (-1, -1)
    return found.st_size, found.st_mtime_ns
