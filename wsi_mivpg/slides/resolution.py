"""Which microns per pixel to believe: the user's, the file's, or the TIFF tags'.

Numbers only; opening files is `reading`'s job.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from wsi_mivpg.errors import ResolutionError

PLAUSIBLE_MPP = (0.05, 20.0)
SAME_IN_X_AND_Y = 0.01
_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")
_UM_PER_TIFF_UNIT = {2: 25_400.0, 3: 10_000.0}


def mpp_from_properties(properties: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return (mpp_x, mpp_y) from OpenSlide or TiffSlide properties, or None where they say nothing."""
    for prefix in ("openslide", "tiffslide"):
        found = (properties.get(f"{prefix}.mpp-x"), properties.get(f"{prefix}.mpp-y"))
        if found[0] is not None and found[1] is not None:
            return float(found[0]), float(found[1])
    return None


def mpp_from_tiff_tags(path: Path) -> tuple[float, float] | None:
    """Return (mpp_x, mpp_y) from a TIFF's resolution tags, or None where there are none."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return mpp_from_tiff_page(tiff.pages[0])
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, struct.error):
        return None


def mpp_from_tiff_page(page: Any) -> tuple[float, float] | None:
    """Return (mpp_x, mpp_y) from the resolution tags of a `tifffile` page, or None where there are none."""
    x, y, unit = (page.tags.valueof(name) for name in ("XResolution", "YResolution", "ResolutionUnit"))
    um = _UM_PER_TIFF_UNIT.get(int(unit or 0))
    if um is None or not x or not y or not (x[0] and x[1] and y[0] and y[1]):
        return None
    return um * x[1] / x[0], um * y[1] / y[0]


def mpp_from_aperio(description: str) -> tuple[float, float] | None:
    """Return (mpp, mpp) from an Aperio description ("… |MPP = 0.4990| …"), or None where it says nothing."""
    found = _APERIO_MPP.search(description)
    return (float(found[1]), float(found[1])) if found else None


def is_plausible(mpp: tuple[float, float]) -> bool:
    """Return whether a microscope can have both (mpp_x, mpp_y)."""
    low, high = PLAUSIBLE_MPP
    return low <= mpp[0] <= high and low <= mpp[1] <= high


def checked_mpp(path: PurePath | str, mpp: tuple[float, float] | None) -> float:
    """Return one mpp for both axes, the mean of the two.

    Raises:
        ResolutionError: no mpp, one outside `PLAUSIBLE_MPP`, or axes that differ by more than 1 %.
    """
    if mpp is None:
        raise ResolutionError(f"{path}: the file gives no microns per pixel; pass them with --mpp (about 0.25 at 40x)")
    x, y = mpp
    if not is_plausible(mpp):
        low, high = PLAUSIBLE_MPP
        raise ResolutionError(
            f"{path}: {x:g} x {y:g} microns per pixel is outside {low:g}-{high:g}; pass the true value with --mpp"
        )
    if abs(x / y - 1) > SAME_IN_X_AND_Y:
        raise ResolutionError(
            f"{path}: microns per pixel differ between x ({x:g}) and y ({y:g}) by more than 1 %; "
            "pass the true value with --mpp"
        )
    return (x + y) / 2
