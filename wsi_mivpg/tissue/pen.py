"""Ink on the glass: red, green, blue and black marker, and black borders.

It says where ink is in an image's optical density; it does not decide what the rest is. Each ink is searched with
hysteresis: seeds that no stain gives and that are as large as a stroke, from there the stroke as it runs on over
tissue, where the stain shifts its colour, and last the paler rim around the stroke.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from wsi_mivpg.tissue.regions import Mask, grown, opened, touching, without_small

_cv2: Any = cv2

Density = npt.NDArray[np.float32]

# A marker's stroke is 0.5 to 2 mm broad; red cells and dense nuclei in a small group stay below both.
_STROKE_RADIUS_UM = 28.0
_SMALLEST_STROKE_UM2 = 0.02e6
# How far the rim of a stroke reaches, where it is out of focus and where it is sharp.
_RIM_UM, _SHARP_RIM_UM = 400.0, 32.0
# Largest fine variation, relative to its darkness, of a rim that is out of focus.
_EVEN = 0.03
_BORDER_OD = 1.0


class _Ink(NamedTuple):
    """Where an ink is for sure, where it is if a seed is connected, and where only its rim can be."""

    seeds: Mask
    body: Mask
    rim: Mask


class _Light(NamedTuple):
    """Optical densities [H, W] of the three channels, their sum, and largest minus smallest."""

    red: Density
    green: Density
    blue: Density
    total: Density
    chroma: Density


def darkness_of(density: Density) -> Density:
    """Return the mean of the three channels, [H, W]; numpy's own mean over a short last axis is ten times slower."""
    darkness: Density = (density[..., 0] + density[..., 1] + density[..., 2]) / np.float32(3)
    return darkness


def chroma_of(channels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the largest minus the smallest of the three channels, [H, W]."""
    first, second, third = channels[..., 0], channels[..., 1], channels[..., 2]
    largest = np.maximum(np.maximum(first, second), third)
    chroma: npt.NDArray[Any] = largest - np.minimum(np.minimum(first, second), third)
    return chroma


def ink_of(density: Density, mpp: float) -> Mask:
    """Return where marker ink or a black border is.

    Args:
        density: float32[H, W, 3], optical density of red, green and blue relative to empty glass.
        mpp: microns per pixel, about 8 or coarser: at finer ones single nuclei look like ink.

    Returns:
        bool[H, W].
    """
    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    light = _Light(red, green, blue, red + green + blue + 1e-3, chroma_of(density))
    cool, warm, black = _cool(light), _warm(light), _black(light)
    # Red cells and dense nuclei come near red and black in colour, but not as broad as a stroke.
    ink = _stroke(cool, cool.seeds, mpp)
    ink |= _stroke(warm, opened(warm.seeds, _STROKE_RADIUS_UM, mpp), mpp)
    darkness = darkness_of(density)
    seeds = opened(black.seeds, _STROKE_RADIUS_UM, mpp)
    if seeds.any():
        # Grey counterstain has the hue of a fading rim too, but is neither as dense nor as even.
        ink |= _stroke(black, seeds, mpp, (_unevenness(darkness) < _EVEN) | (light.total > 1.0))
    return ink | _borders(darkness)


def _cool(light: _Light) -> _Ink:
    """Green, cyan and blue ink: stains take at least as much green as red light, these take more red."""
    red, green, blue, total, chroma = light
    excess = red - green
    seeds = (excess > 0.10) & (excess > 0.06 * total)
    seeds |= (excess > 0.04) & (red > 0.5 * total)
    # A deep blue takes both; no stain lets blue light through like it. A violet scan of H&E takes more green.
    deep = (red > 0.40 * total) & (red > 0.95 * green)
    seeds |= deep & (blue < 0.13 * total) & (chroma > 0.25)
    seeds |= deep & (blue < 0.18 * total) & (chroma > 0.50)
    body = (red > 0.38 * total) & (blue < 0.22 * total) & (total > 1.2)
    return _Ink(seeds, body, (excess > 0.05) | ((excess > 0.015) & (excess > 0.08 * total)))


def _warm(light: _Light) -> _Ink:
    """Red and orange ink: clearer to red light than red cells are, and less pink than eosin."""
    red, green, blue, total, chroma = light
    seeds = (red < 0.075 * total) & (chroma > 0.33) & (blue > 0.65 * green)
    body = (red < 0.19 * total) & (chroma > 0.45) & (blue > 0.66 * green) & (blue < 1.05 * green)
    # Where red ink runs into black, red light fades before the rest changes; DAB takes more blue than green light.
    rim = (red < 0.16 * total) & (blue > 0.67 * green)
    rim |= (red < 0.26 * total) & (blue > 0.74 * green) & (blue < 1.05 * green)
    return _Ink(seeds, body, rim & (chroma > 0.04))


def _black(light: _Light) -> _Ink:
    """Black ink: dense, with less colour than haematoxylin, eosin or DAB have where they are as dense."""
    red, green, blue, total, _ = light
    between = (blue > 0.2 * total) & (blue < 0.385 * total) & (red > 0.18 * total) & (red < 0.42 * total)
    hueless = between & ((green < 0.44 * total) | (blue > 0.76 * green))
    # The densest DAB is nearly black, but still brown; so is black ink over DAB, but far denser.
    brown = (blue > green) & (blue > red + 0.02 * total)
    body = between & (green < 0.46 * total) & (total > 1.8) & (~brown | (total > 2.4))
    return _Ink(hueless & ~brown & (total > 1.5), body, hueless & (total > 0.10))


def _stroke(ink: _Ink, seeds: Mask, mpp: float, far: Mask | None = None) -> Mask:
    """Grow seeds into a stroke and its rim; beyond a sharp rim only where `far` says."""
    if seeds.any():
        seeds = without_small(seeds, _SMALLEST_STROKE_UM2, mpp)
    if not seeds.any():
        return seeds
    stroke = touching(opened(ink.body | seeds, _STROKE_RADIUS_UM, mpp), seeds) | seeds
    reach = grown(stroke, _RIM_UM, mpp)
    if far is not None:
        reach &= far | grown(stroke, _SHARP_RIM_UM, mpp)
    return stroke | touching((ink.rim | stroke) & reach, stroke)


def _borders(darkness: Density) -> Mask:
    """Scanner black that reaches the image's edge."""
    black = darkness > _BORDER_OD
    edge = np.zeros_like(black)
    edge[[0, -1], :] = True
    edge[:, [0, -1]] = True
    return touching(black, edge)


def _unevenness(darkness: Density) -> Density:
    """Return the fine variation around each pixel relative to its darkness."""
    fine = np.abs(darkness - _cv2.GaussianBlur(darkness, (0, 0), 1.5))
    uneven: Density = _cv2.blur(fine, (5, 5)) / (_cv2.blur(darkness, (5, 5)) + 0.05)
    return uneven
