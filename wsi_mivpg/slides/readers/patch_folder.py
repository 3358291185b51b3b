"""Folders of patches that were cut from slides before: which patches are one slide, and their pixels in batches.

Where the patches lay is unknown, so this is no `Reader`: there is no geometry, map or mask.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.readers.base import Pixels
from wsi_mivpg.slides.readers.picture import decoded_picture
from wsi_mivpg.slides.resample import resample
from wsi_mivpg.slides.resolution import checked_mpp
from wsi_mivpg.slides.stream import RegionBatch, in_batches

PATCH_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_MOST_PX = 1 << 26
_SLIDE_AND_HASH = re.compile(r"(?P<slide>.+)_(?P<hash>[0-9A-Za-z]{5,})")
# An index or a coordinate (00017, x1024, row00012), which many files of one slide end with.
_NUMBER = re.compile(r"[A-Za-z]{0,4}[0-9]+")


@dataclass(frozen=True)
class PatchFolder:
    """The patches of one slide.

    Attributes:
        slide_id: the slide's name.
        paths: the patches' files, in name order, which need not be the order on the slide.
        mpp: microns per pixel of the patches as the user states them, or None.
    """

    slide_id: str
    paths: tuple[Path, ...]
    mpp: float | None

    @property
    def has_coordinates(self) -> bool:
        """False, always: names of patches are not believed to say where on the slide the patches lay.

        What needs places (heat maps, overlays, neighbours) cannot be made from patches.
        """
        return False


def find_patch_slides(folder: Path, *, mpp: float | None = None) -> list[PatchFolder]:
    """Return the slides whose patches (PNG and JPEG, hidden files left out) a folder holds, in name order.

    - Patches in subfolders: each subfolder is one slide, named as it, with all patches below it.
    - Patches in the folder itself, all named `{slide}_{hash}` as in PatchGastricADC22: one slide for each `{slide}`.
      A hash is at least five letters or digits after the last underscore. The form is believed only where some
      slide has two patches and where not every ending is a number with at most four letters before it:
      `tile_x1024_y20480` and `a_00017` are positions and indices, not hashes.
    - Any other patches in the folder itself: one slide, named as the folder.

    Args:
        folder: where the patches are.
        mpp: microns per pixel of all patches; None where they are unknown.

    Raises:
        SlideError: no such folder, no patches, patches both in it and in subfolders, or several slides in one
            subfolder.
        ResolutionError: an absurd `mpp`.
    """
    if not folder.is_dir():
        raise SlideError(f"{folder}: no such folder; check the path")
    if mpp is not None:
        mpp = checked_mpp(folder, (mpp, mpp))
    below = _patches_below(folder)
    direct = below.pop("", [])
    if direct and below:
        raise SlideError(
            f"{folder}: patches both in it ({direct[0].name}) and in its subfolder {min(below)}; "
            "keep each slide's patches in a subfolder, or all in one folder"
        )
    if not direct and not below:
        raise SlideError(f"{folder}: no patches in this folder; known are {' '.join(sorted(PATCH_SUFFIXES))}")
    slides = {} if below else _by_hash(direct) or {folder.resolve().name: direct}
    for name, paths in below.items():
        if len(_by_hash(paths)) > 1:
            raise SlideError(
                f"{folder / name}: its patches are named for several slides ({', '.join(sorted(_by_hash(paths))[:3])}, "
                "…); name this folder itself"
            )
        slides[name] = paths
    return [PatchFolder(slide_id, tuple(sorted(paths)), mpp) for slide_id, paths in sorted(slides.items())]


def read_patches(
    folder: PatchFolder, size_px: int, batch_size: int = 32, *, threads: int | None = None
) -> Iterator[RegionBatch]:
    """Yield the patches in order as uint8 (N, size_px, size_px, 3), read ahead by threads.

    Larger patches are resampled by area, which multiplies their microns per pixel by their side over `size_px`.
    What cannot be used is white and named in the batch's `failures`: a patch that cannot be read, is smaller than
    `size_px` (enlarging would invent detail) or is not square (it would be distorted).

    Args:
        folder: from `find_patch_slides`.
        size_px: side of the patches in the batches.
        batch_size: patches in a batch; the last one may be smaller.
        threads: decoding threads; default one for each core, at most 16.
    """

    def read(index: int, out: Pixels) -> Pixels:
        return read_patch(folder.paths[index], size_px, out)

    yield from in_batches(read, len(folder.paths), size_px, batch_size=batch_size, threads=threads)


def read_patch(path: Path, size_px: int, out: Pixels) -> Pixels:
    """Return one patch as uint8 (size_px, size_px, 3), in `out` or not.

    Raises:
        SlideError: it cannot be read, is not square or is smaller than `size_px`.
    """
    try:
        pixels = decoded_picture(path, _MOST_PX)
    except (ValueError, OSError) as error:
        raise SlideError(f"{path}: the patch cannot be read: {error}; leave it out or copy it again") from error
    height, width = pixels.shape[:2]
    if width != height:
        raise SlideError(f"{path}: {width}x{height} px is not square; cut square patches")
    if width < size_px:
        raise SlideError(
            f"{path}: {width}x{height} px is smaller than the {size_px} px that are asked, and patches are never "
            "enlarged; cut larger patches or take an encoder of smaller tiles"
        )
    return resample(pixels, (0.0, 0.0, float(width), float(height)), (size_px, size_px), out)


def _patches_below(folder: Path) -> dict[str, list[Path]]:
    """Return patches by the name of the direct subfolder that they are below, "" for those in the folder itself."""
    found: dict[str, list[Path]] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        parts = Path(place).relative_to(folder).parts
        patches = [
            Path(place, name)
            for name in sorted(names)
            if Path(name).suffix.lower() in PATCH_SUFFIXES and not name.startswith(".")
        ]
        if patches:
            found.setdefault(parts[0] if parts else "", []).extend(patches)
    return found


def _by_hash(paths: list[Path]) -> dict[str, list[Path]]:
    """Return patches by their `{slide}`, or {} where the names are not of the form `{slide}_{hash}`."""
    slides: dict[str, list[Path]] = {}
    endings = []
    for path in paths:
        parts = _SLIDE_AND_HASH.fullmatch(path.stem)
        if parts is None:
            return {}
        endings.append(parts["hash"])
        slides.setdefault(parts["slide"], []).append(path)
    has_repeats = len(slides) < len(paths)
    has_hashes = not all(_NUMBER.fullmatch(ending) for ending in endings)
    return slides if has_repeats and has_hashes else {}
