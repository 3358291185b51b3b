"""How a slide shows itself in a notebook: facts, and a thumbnail if that costs no more than a moment."""

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from wsi_mivpg import notebook_cards
from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.readers.base import Pixels

if TYPE_CHECKING:
    from wsi_mivpg.slides.reading import Slide

_MOST_SECONDS = 0.4
_STRIP_SOURCE_PX = 2e6


def slide_card(slide: "Slide") -> str:
    """Return the card of a slide as HTML; a closed or damaged one has no picture."""
    picture, remarks = None, []
    scale = max(1.0, max(slide.size_px) / notebook_cards.PICTURE_PX)
    try:
        pixels = _quick_thumbnail(slide, scale)
        if pixels is None:
            remarks = ["No picture: this file has no small level to make one from quickly; slide.thumbnail(1024) does."]
        else:
            picture = notebook_cards.Picture(pixels, slide.mpp * scale)
    except (SlideError, OSError, ValueError) as problem:
        remarks = [f"No picture: {problem}"]
    width_mm, height_mm = (side * slide.mpp / 1000 for side in slide.size_px)
    facts = [
        ("size", notebook_cards.size_text(slide.size_px)),
        ("", f"{width_mm:.1f} × {height_mm:.1f} mm"),
        ("resolution", f"{slide.mpp:.4g} µm/px ({slide.mpp_source})"),
        ("levels", ", ".join(f"1:{downsample:.4g}" for downsample in slide.downsamples)),
        ("vendor", slide.vendor),
        ("reader", slide.reader),
    ]
    return notebook_cards.card(slide.path.name, facts, picture, remarks=remarks)


def _quick_thumbnail(slide: "Slide", scale: float) -> Pixels | None:
    """Return the slide at `scale` level-0 px per pixel, read in strips; None once that takes too long."""
    width, height = (max(1, round(side / scale)) for side in slide.size_px)
    usable = [size for size, down in zip(slide.level_sizes_px, slide.downsamples, strict=True) if down <= scale * 1.001]
    source_px = min((w * h for w, h in usable), default=0)
    rows = max(1, math.floor(height * _STRIP_SOURCE_PX / max(source_px, 1)))
    started, strips = time.perf_counter(), []
    for top in range(0, height, rows):
        part = slide.read_region(0, top * scale, (width, min(rows, height - top)), slide.mpp * scale)
        strips.append(part)
        taken = time.perf_counter() - started
        if taken / len(strips) * math.ceil(height / rows) > _MOST_SECONDS:
            return None
    return np.concatenate(strips)
