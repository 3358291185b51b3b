"""Choose how tissue is found: by colour, by saturation, everything, from a GeoJSON file, or by a plugged-in segmenter.

It takes the slide's thumbnail at the mask's resolution and gives a `TissueMask`; the methods themselves are elsewhere.
Only the method by colour looks at finer pixels too, for what is out of focus.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wsi_mivpg.errors import TissueError
from wsi_mivpg.tissue.focus import HasLevels, out_of_focus
from wsi_mivpg.tissue.mask import TissueMask
from wsi_mivpg.tissue.stain import HSV_METHOD, TISSUE_METHOD, saturated_tissue_of, tissue_of, without_specks

PLUGIN_GROUP = "wsi_mivpg.tissue"
"""Entry points here are callables (uint8[H, W, 3] RGB, mpp) -> bool[H, W]."""

Segmenter = Callable[[npt.NDArray[np.uint8], float], npt.NDArray[np.bool_]]


class _HasThumbnail(HasLevels, Protocol):
    size_px: tuple[int, int]

    def thumbnail(self, max_side_px: int) -> npt.NDArray[np.uint8]: ...


def _everything(pixels: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.bool_]:
    return np.ones(pixels.shape[:2], dtype=bool)


# Name -> (what provenance calls it, the segmenter).
_BUILT_IN: dict[str, tuple[str, Segmenter]] = {
    "otsu": (TISSUE_METHOD, tissue_of),
    "hsv": (HSV_METHOD, saturated_tissue_of),
    "none": ("none", _everything),
}


def find_tissue(slide: _HasThumbnail, method: str | Path = "otsu", *, mask_mpp: float = 8.0) -> TissueMask:
    """Find the tissue of a slide.

    Args:
        slide: an open slide.
        method: "otsu" (optical density and chroma, without ink, artefacts and what is out of focus), "hsv"
            (saturation; keeps ink), "none" (all is tissue), a path that ends in .geojson or .json, or the name of
            an installed segmenter (entry point group `wsi_mivpg.tissue`).
        mask_mpp: microns per pixel of the mask.

    Raises:
        TissueError: there is no such method, the GeoJSON is malformed, or a segmenter cannot be loaded or
            gives back something else than a mask of the thumbnail's size.
    """
    if isinstance(method, Path) or method.lower().endswith((".geojson", ".json")):
        return TissueMask.from_geojson(Path(method), slide.size_px, slide.mpp, mask_mpp=mask_mpp)
    name = provenance_name(method)
    segmenter = _BUILT_IN[method][1] if method in _BUILT_IN else _plugged_in(method)
    longest_px = max(slide.size_px)
    pixels = slide.thumbnail(max(1, round(longest_px * slide.mpp / mask_mpp)))
    mpp = longest_px * slide.mpp / max(pixels.shape[:2])
    mask = _checked(segmenter(pixels, mpp), pixels, method)
    if segmenter is not tissue_of:
        return TissueMask(mask, slide.size_px, slide.mpp, name)
    blurred = out_of_focus(slide, mask, mpp)
    if blurred.any():
        mask = without_specks(mask & ~blurred, mpp)
    return TissueMask(mask, slide.size_px, slide.mpp, name, blurred)


def provenance_name(method: str) -> str:
    """Return what a method is called in provenance: with the version of a built-in one, or as a plug-in."""
    return _BUILT_IN[method][0] if method in _BUILT_IN else f"plugin:{method}"


def method_named(provenance: str) -> str | None:
    """Return the method that `provenance_name` calls so; None where there is none here, as for what somebody drew."""
    methods = [*_BUILT_IN, *(point.name for point in entry_points(group=PLUGIN_GROUP))]
    return next((method for method in methods if provenance_name(method) == provenance), None)


def _plugged_in(name: str) -> Segmenter:
    installed: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=PLUGIN_GROUP)}
    if name not in installed:
        choices = ", ".join([*_BUILT_IN, *sorted(installed)])
        raise TissueError(f"there is no tissue method {name!r}; choose one of: {choices}, or a FILE.geojson")
    try:
        loaded: Any = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise TissueError(
            f"the tissue method {name!r} ({installed[name].value}) cannot be loaded: {error}; reinstall its package"
        ) from error
    if not callable(loaded):
        raise TissueError(f"the tissue method {name!r} ({installed[name].value}) is not callable; mend its entry point")
    segmenter: Segmenter = loaded
    return segmenter


def _checked(found: Any, pixels: npt.NDArray[np.uint8], method: str) -> npt.NDArray[np.bool_]:
    mask = np.asarray(found)
    if mask.dtype != np.bool_ or mask.shape != pixels.shape[:2]:
        raise TissueError(
            f"the tissue method {method!r} gave {mask.dtype}{list(mask.shape)} for a thumbnail of "
            f"{list(pixels.shape[:2])}; it has to give bool of that size"
        )
    return mask
