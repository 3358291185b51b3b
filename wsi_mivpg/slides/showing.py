"""How a slide shows itself in a notebook: facts, and a thumbnail if that costs no more than a moment."""

import time
from typing import TYPE_CHECKING

import numpy as np

from wsi_mivpg import notebook_cards
from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides.readers.base import Pixels

if TYPE_CHECKING:
    from wsi_mivpg.slides.reading import Slide

_MOST_SECONDS = 0.5
_MOST_SOURCE_PX = 24_000_000
_STRIP_PX = 1_000_000


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
    """Return the slide at about `scale` level-0 px per pixel; None if that takes too long.

    Its level is read in strips, between which there is time to give up.
    """
    from PIL import Image

    from wsi_mivpg.slides.reading import coarsest_level

    level = coarsest_level(slide.downsamples, scale)
    width, height = slide.level_sizes_px[level]
    if width * height > _MOST_SOURCE_PX:
        return None
    rows = max(1, _STRIP_PX // width)
    started, strips = time.perf_counter(), []
    for top in range(0, height, rows):
        strips.append(slide.read_level(0, top, level, (width, min(rows, height - top))))
        if time.perf_counter() - started > _MOST_SECONDS and top + rows < height:
            return None
    columns, lines = (max(1, round(side / scale)) for side in slide.size_px)
    shrunk = Image.fromarray(np.concatenate(strips)).resize((columns, lines), Image.Resampling.BOX)
    return np.asarray(shrunk, np.uint8)
