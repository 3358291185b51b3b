"""How our objects show themselves in a notebook: a small card of a title, facts and a picture, as HTML.

It is given facts and pixels and knows none of the objects. Everything is escaped; colours are the notebook's own.
"""

import base64
import functools
import html
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

PICTURE_PX = 320
"""Longest side of a picture."""

_Self = TypeVar("_Self")
_BOX = "display:flex;flex-wrap:wrap;gap:4px 20px;align-items:flex-start;font-size:13px;line-height:1.5;max-width:900px"
_SOFT = "opacity:.72"
_CELL = "padding:0 14px 0 0;text-align:left;vertical-align:top;background:none;border:0"


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels for a card.

    Attributes:
        pixels: uint8 (H, W, 3) or (H, W, 4).
        um_per_px: microns per pixel, for a scale bar; None for none.
    """

    pixels: npt.NDArray[np.uint8]
    um_per_px: float | None = None


def safe(show: Callable[[_Self], str]) -> Callable[[_Self], str | None]:
    """Let a notebook fall back on the plain `repr` when an object cannot be shown: looking must never fail."""

    @functools.wraps(show)
    def shown(one: _Self) -> str | None:
        try:
            return show(one)
        except Exception:
            return None

    return shown


def card(
    title: str,
    facts: Iterable[tuple[str, object]],
    picture: Picture | None = None,
    *,
    remarks: Sequence[str] = (),
) -> str:
    """Return a card as HTML; facts that are None are left out."""
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL};{_SOFT}">{html.escape(name)}</td>'
        f'<td style="{_CELL}">{html.escape(str(value))}</td></tr>'
        for name, value in facts
        if value is not None
    )
    table = f'<table style="border:0;margin:4px 0;font-size:13px">{rows}</table>' if rows else ""
    below = "".join(f'<div style="{_SOFT};max-width:36em">{html.escape(remark)}</div>' for remark in remarks)
    head = f'<b style="overflow-wrap:anywhere">{html.escape(title)}</b>'
    return f'<div style="{_BOX}"><div>{head}{table}{below}</div>{"" if picture is None else _figure(picture)}</div>'


def tile_picture(
    coords: npt.NDArray[np.int64], tile_size_l0: float, slide_size_px: tuple[int, int], values: npt.NDArray[Any]
) -> npt.NDArray[np.uint8]:
    """Draw tiles on a transparent map of their slide, uint8 (H, W, 4), in as few steps as tiles or their pixels allow.

    Args:
        coords: (N, 2) int64, level-0 px, upper left corners (x, y).
        tile_size_l0: side of a tile in level-0 px.
        slide_size_px: (width, height) of level 0.
        values: (N,) 0..1: how strongly each is coloured.
    """
    scale = max(slide_size_px) / PICTURE_PX
    width, height = (max(1, math.ceil(side / scale)) for side in slide_size_px)
    first = np.floor(coords / scale).astype(np.int64)
    # A gap of a pixel tells neighbours apart where there is room for it.
    side = max(1, math.floor(tile_size_l0 / scale) - (tile_size_l0 / scale >= 4))
    pixels = np.zeros((height, width, 4), np.uint8)
    alpha = (70 + 185 * np.clip(np.nan_to_num(values, nan=1.0), 0, 1)).astype(np.uint8)
    colours = np.stack([np.full_like(alpha, 33), np.full_like(alpha, 145), np.full_like(alpha, 140), alpha], axis=1)
    if len(coords) < side * side:
        for (x, y), colour in zip(first.tolist(), colours, strict=True):
            pixels[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = colour
        return pixels
    for dy in range(side):
        for dx in range(side):
            x, y = first[:, 0] + dx, first[:, 1] + dy
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            pixels[y[inside], x[inside]] = colours[inside]
    return pixels


def mask_picture(mask: npt.NDArray[np.bool_], blurred: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.uint8]:
    """Draw a mask bool (H, W) in green, what is out of focus in orange, on a transparent ground: uint8 (h, w, 4)."""
    from PIL import Image

    shrink = max(1.0, max(mask.shape) / PICTURE_PX)
    size = tuple(max(1, round(side / shrink)) for side in mask.shape[::-1])
    picture = np.zeros((size[1], size[0], 4), np.uint8)
    for part, colour in ((mask, (33, 145, 140)), (blurred, (230, 130, 20))):
        if part is None:
            continue
        share = np.asarray(Image.fromarray(part.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
        shown = share > picture[..., 3]
        picture[shown, :3] = colour
        picture[shown, 3] = share[shown]
    return picture


def thousands(number: int) -> str:
    """Return a number with narrow spaces between groups of three digits."""
    return f"{number:,}".replace(",", "\u202f")


def size_text(size_px: tuple[int, int]) -> str:
    """Return "width × height px"."""
    return f"{thousands(size_px[0])} × {thousands(size_px[1])} px"


def _figure(picture: Picture) -> str:
    height, width = picture.pixels.shape[:2]
    bar = _scale_bar(width, picture.um_per_px)
    style = f"width:{width}px;max-width:100%;border:1px solid rgba(128,128,128,.4);border-radius:4px;margin:0"
    return (
        f'<div style="flex:none"><img alt="" width="{width}" height="{height}" style="{style}" '
        f'src="{_data_uri(picture.pixels)}">{bar}</div>'
    )


def _scale_bar(width_px: int, um_per_px: float | None) -> str:
    if um_per_px is None or not um_per_px > 0:
        return ""
    most_um = width_px * um_per_px / 3
    power = 10.0 ** math.floor(math.log10(most_um))
    length_um = next(step * power for step in (5, 2, 1) if step * power <= most_um)
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    return (
        f'<div style="width:{length_um / um_per_px:.1f}px;border-bottom:2px solid;font-size:12px;line-height:1.3;'
        f'text-align:center;white-space:nowrap">{label}</div>'
    )


def _data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """JPEG for a slide, PNG for what is partly transparent."""
    from PIL import Image

    kind = "jpeg" if pixels.shape[2] == 3 else "png"
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, kind)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
