"""Whole pictures as inputs, and the rows of their bags: the tokens that an encoder makes of a picture, in their places.

A bag then holds one picture's patches, not a slide's tiles. Reading and encoding is the engine's job: a picture is one
tile to it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_mivpg.bags.provenance import PATCH_TOKENS
from wsi_mivpg.bags.writing import UNKNOWN
from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.errors import EncoderError, SlideError
from wsi_mivpg.extraction.inputs import SlideInput
from wsi_mivpg.extraction.sources import Source, Tiles, stamp
from wsi_mivpg.slides.fingerprint import fingerprint_of
from wsi_mivpg.slides.readers.base import Pixels
from wsi_mivpg.slides.readers.picture import decoded_picture, opened_picture

_MOST_PX = 1 << 27


def check_inputs(slides: Sequence[SlideInput], encoders: Sequence[TileEncoder]) -> None:
    """Refuse pictures for encoders that pool, and slides for encoders that keep their tokens.

    Raises:
        EncoderError: a slide and an encoder do not go together.
    """
    for encoder in encoders:
        keeps_tokens = encoder.spec.n_tokens > 1
        for slide in slides:
            if slide.is_picture != keeps_tokens:
                gives = "patch tokens, which are made of whole pictures" if keeps_tokens else "one vector per tile"
                what = "a whole picture" if slide.is_picture else "a slide or a folder of patches"
                raise EncoderError(f"{slide.shown} is {what}, but {encoder.spec.name} gives {gives}")


def open_picture(given: SlideInput, tile_px: int) -> Source:
    """Open a picture that is brought to `tile_px` by `tile_px` as a whole, whatever its shape, as BLIP-2 does.

    Raises:
        SlideError: it is not there, or no picture.
    """
    path = given.source
    if not isinstance(path, Path):
        raise SlideError(f"{given.shown}: pictures are read from files; download it first")
    seen = stamp(path)
    try:
        with opened_picture(path, _MOST_PX) as picture:
            width, height = picture.size
        with path.open("rb") as stream:
            fingerprint = fingerprint_of(stream)
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error

    def read(index: int, out: Pixels) -> Pixels:
        return read_squashed(path, tile_px)

    def plan() -> Tiles:
        nowhere = np.full((1, 2), UNKNOWN)
        return Tiles(nowhere.astype(np.int64), nowhere.astype(np.int32), np.ones(1, np.float32), "", read)

    provenance = _provenance(given, path, fingerprint, (width, height), tile_px)
    return Source(given, provenance, plan, lambda: stamp(path) == seen, lambda: None)


def read_squashed(path: Path, side_px: int) -> Pixels:
    """Return a picture as uint8 (side_px, side_px, 3): all of it, resampled bicubically, its shape not kept.

    Raises:
        SlideError: it cannot be read.
    """
    try:
        pixels = decoded_picture(path, _MOST_PX)
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    return np.asarray(Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC))


def token_places(n_tokens: int, size_px: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return where the tokens of a picture lie; the class token, if there is one, lies nowhere (-1).

    Args:
        n_tokens: a square of patches, row by row, with or without a class token before them.
        size_px: (width, height) of the picture.

    Returns:
        coords (n_tokens, 2) int64, px of the picture, top left corners (x, y); grid (n_tokens, 2) int32, (column, row).
    """
    side = math.isqrt(n_tokens)
    grid = np.full((n_tokens, 2), UNKNOWN, np.int32)
    patch = np.arange(side * side)
    grid[n_tokens - side * side :] = np.column_stack([patch % side, patch // side])
    coords = np.where(grid == UNKNOWN, UNKNOWN, grid.astype(np.int64) * np.array(size_px) // side)
    return coords, grid


def _provenance(
    given: SlideInput, path: Path, fingerprint: str, size_px: tuple[int, int], tile_px: int
) -> dict[str, Any]:
    """Say of a picture what `BagProvenance` asks of a slide; it has no microns."""
    return {
        "slide_id": given.slide_id,
        "case_id": given.case_id,
        "slide_path": path.name,
        "slide_fingerprint": fingerprint,
        "slide_width_px": size_px[0],
        "slide_height_px": size_px[1],
        "slide_mpp": math.nan,
        "mpp_source": "none",
        "reader": "picture",
        "target_mpp": math.nan,
        "tile_px": tile_px,
        "stride_px": tile_px,
        "tile_size_l0": math.nan,
        "min_tissue": 0.0,
        "tissue_method": "none",
        "coords_known": True,
        "instances": PATCH_TOKENS,
    }


def _unreadable(path: Path, error: Exception) -> SlideError:
    return SlideError(f"{path}: the picture cannot be read: {error}; leave it out or copy it again")
