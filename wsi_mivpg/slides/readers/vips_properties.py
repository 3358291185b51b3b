"""The microns per pixel in the `vips-properties.xml` that libvips writes beside DeepZoom tiles."""

import math
from pathlib import Path

from wsi_mivpg.slides.readers.safe_xml import local_name, xml_root
from wsi_mivpg.slides.resolution import is_plausible

_MOST_BYTES = 1 << 24


def mpp_from_vips(path: Path) -> tuple[float, float] | None:
    """Return (mpp_x, mpp_y) of the picture that libvips saved, or None where the file says nothing that can be used.

    OpenSlide's value is for the slide's own level 0, while libvips may have loaded a coarser one. The picture's
    resolution is believed only where it is plausible: libvips writes 1 px/mm where it knows nothing.
    """
    try:
        root = xml_root(path, _MOST_BYTES)
    except (OSError, ValueError):
        return None
    said: dict[str, str] = {}
    for element in root.iter():
        values = {local_name(child): child.text or "" for child in element}
        if "name" in values and "value" in values:
            said[values["name"]] = values["value"]
    scanned = _pair(said, "openslide.mpp-x", "openslide.mpp-y")
    if scanned is not None:
        level = said.get("slide-level", "0")
        scale = 1.0 if level == "0" else _number(said, f"openslide.level[{level}].downsample")
        return None if scale is None else (scanned[0] * scale, scanned[1] * scale)
    pixels_per_mm = _pair(said, "xres", "yres")
    if pixels_per_mm is None:
        return None
    mpp = (1000 / pixels_per_mm[0], 1000 / pixels_per_mm[1])
    return mpp if is_plausible(mpp) else None


def _pair(said: dict[str, str], x_name: str, y_name: str) -> tuple[float, float] | None:
    x, y = _number(said, x_name), _number(said, y_name)
    return None if x is None or y is None else (x, y)


def _number(said: dict[str, str], name: str) -> float | None:
    """Return a positive, finite number, or None."""
    try:
        value = float(said[name])
    except (KeyError, ValueError):
        return None
    return value if 0 < value < math.inf else None
