"""Figures of a map for people: over the slide or on white, with its top tenth outlined and a colour bar with numbers.

From coordinates, weights and, where there is one, a picture of the slide; it opens no file.
"""

from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from wsi_mivpg.evidence.geojson import BETTER_THAN_RANDOM, Target
from wsi_mivpg.evidence.heatmap import colours, heatmap_rgba, rank_scaled, raw_scaled, tile_means, top_decile
from wsi_mivpg.evidence.slide_tiles import SlideTiles
from wsi_mivpg.evidence.units import unit_of

Scale = Literal["rank", "raw"]
SCALES: tuple[Scale, ...] = ("rank", "raw")
Pixels = npt.NDArray[np.uint8]

_OPACITY = 0.55
_LEAST_WIDTH_PX = 640
_MARGIN_PX, _LINE_PX, _BAR_PX = 16, 20, 16


def overlay(slide: SlideTiles, weights: npt.NDArray[np.float32], scale: Scale, out_size_px: tuple[int, int]) -> Pixels:
    """Return a slide's part of a case's map as a transparent picture, uint8 (height, width, 4); scaled over the case.

    Args:
        slide: whose tiles.
        weights: float (M,), of all tiles of the case.
        scale: by rank, or by size ("raw"), where what is below zero looks like zero.
        out_size_px: (width, height) of the picture, which shows the whole slide.
    """
    shares = slide.of(rank_scaled(weights) if scale == "rank" else raw_scaled(weights))
    return heatmap_rgba(slide.coords, slide.side_l0, shares, slide.canvas_px, out_size_px)


def size_within(slide: SlideTiles, max_side_px: int) -> tuple[int, int]:
    """Return (width, height) of a picture of the whole slide with this longest side, as `Slide.thumbnail` has it."""
    width, height = slide.canvas_px
    by = max(1.0, max(width, height) / max_side_px)
    return max(1, round(width / by)), max(1, round(height / by))


def figure(slide: SlideTiles, target: Target, method: str, scale: Scale, background: Pixels) -> Pixels:
    """Return a picture of a map with title, contour of the case's top tenth, and colour bar.

    Args:
        slide: whose tiles; they can be drawn.
        target: what the map supports.
        method: how its weights were found.
        scale: as in `overlay`.
        background: uint8 (H, W, 3), the whole slide; white where there is no slide.

    Returns:
        uint8 (H + title + legend, at least 640, 3); the slide begins in its own row at the left edge.
    """
    high, wide = background.shape[:2]
    heat = overlay(slide, target.weights, scale, (wide, high))
    alpha = heat[..., 3:] / 255 * _OPACITY
    picture = np.rint(background * (1 - alpha) + heat[..., :3] * alpha).astype(np.uint8)
    picture = _outlined(picture, slide, top_decile(target.weights))
    width = max(wide, _LEAST_WIDTH_PX)
    title = _text([f"{target.name} · {slide.slide_id} · {method}", f"“{target.text}”"], width)
    doubt = ["No better than random tiles: this map does not explain these words."]
    doubt = doubt if target.figures.get(BETTER_THAN_RANDOM) == 0 else []
    notes = _text(doubt + _notes(target.weights, method, scale), width)
    middle = np.full((high, width, 3), 255, np.uint8)
    middle[:, :wide] = picture
    return np.concatenate([title, middle, _colour_bar(target.weights, scale, width), notes])


def _outlined(picture: Pixels, slide: SlideTiles, in_top: npt.NDArray[np.bool_]) -> Pixels:
    """Draw the edge of the top tenth, white with black inside it, within the tiles."""
    chosen = slide.of(in_top)
    size = (picture.shape[1], picture.shape[0])
    ones = np.ones(int(chosen.sum()))
    region = ~np.isnan(tile_means(slide.coords[chosen], slide.side_l0, ones, slide.canvas_px, size))
    inner = ndimage.binary_erosion(region)
    picture[region & ~inner] = 255
    picture[inner & ~ndimage.binary_erosion(inner)] = 0
    return picture


def _colour_bar(weights: npt.NDArray[np.float32], scale: Scale, width: int) -> Pixels:
    """Return viridis from left to right with the weights that its colours stand for."""
    length = width - 6 * _MARGIN_PX
    image = Image.new("RGB", (width, _BAR_PX + 2 * _LINE_PX + _MARGIN_PX), "white")
    bar = colours(np.tile(np.linspace(0, 1, length), (_BAR_PX, 1)))[..., :3]
    image.paste(Image.fromarray(np.ascontiguousarray(bar)), (3 * _MARGIN_PX, _MARGIN_PX))
    draw = ImageDraw.Draw(image)
    for share in np.linspace(0, 1, 5).tolist():
        if scale == "rank":
            labels = [f"{100 * share:.0f} %", f"{np.quantile(weights, share):.2g}"]
        else:
            labels = [f"{share * max(float(weights.max(initial=0)), 0):.2g}"]
        x = 3 * _MARGIN_PX + share * (length - 1)
        draw.line([(x, _MARGIN_PX + _BAR_PX), (x, _MARGIN_PX + _BAR_PX + 4)], "black")
        for line, label in enumerate(labels):
            draw.text((x, _MARGIN_PX + _BAR_PX + 4 + line * 15), label, "black", _font(13), anchor="ma")
    return np.asarray(image)


def _notes(weights: npt.NDArray[np.float32], method: str, scale: Scale) -> list[str]:
    """Return what the colour bar's numbers are."""
    unit = unit_of(method)
    if scale == "rank":
        first = f"Colour: rank among the tiles of the case; below it the weight at that rank ({unit})."
    else:
        first = f"Colour: weight ({unit}), from zero."
    against = int((weights < 0).sum())
    if against:
        share = f"{against} of {len(weights)} tiles weigh below zero: they speak against these words"
        first += f" {share}." if scale == "rank" else f" {share} and have the colour of zero."
    return [first, "Line: the tenth of the case's tiles that weighs most. Overlapping tiles: their mean."]


def _text(lines: list[str], width: int) -> Pixels:
    """Return lines of text in black on white, wrapped to the width."""
    font = _font(14)
    wrapped = [part for line in lines for part in _wrapped(line, width - 2 * _MARGIN_PX, font)]
    image = Image.new("RGB", (width, len(wrapped) * _LINE_PX + _MARGIN_PX), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(wrapped):
        draw.text((_MARGIN_PX, _MARGIN_PX // 2 + number * _LINE_PX), line, "black", font)
    return np.asarray(image)


def _wrapped(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:  # one that is longer than a line, as in scripts without spaces, is broken
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:  # Pillow's own has Latin letters without accents only
        return ImageFont.load_default(size)
