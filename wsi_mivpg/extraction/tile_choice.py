"""Which tiles are cut for which encoder, and whether it was trained on such.

Numbers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wsi_mivpg.encoders.registry import EncoderSpec, TileEncoder
from wsi_mivpg.errors import EncoderError

_TRAINED_TOLERANCE = 0.02


@dataclass(frozen=True)
class TileChoice:
    """Tiles of `tile_px` pixels of `mpp` microns each."""

    tile_px: int
    mpp: float


def choose_tiles(
    specs: Sequence[EncoderSpec], tile_px: int | None, mpp: float | None, *, force: bool = False
) -> TileChoice | None:
    """Return the tiles that the user states for all encoders, or None where each shall have those it was trained on.

    An encoder resizes what it is given to its own size in pixels; what counts is the resolution that it then sees.

    Raises:
        EncoderError: an encoder was trained on another resolution, and `force` is not set.
    """
    if tile_px is None and mpp is None:
        return None
    chosen = TileChoice(tile_px or specs[0].tile_px, mpp or specs[0].mpp)
    for spec in specs:
        seen_mpp = chosen.mpp * chosen.tile_px / spec.tile_px
        if abs(seen_mpp / spec.mpp - 1) > _TRAINED_TOLERANCE and not force:
            raise EncoderError(
                f"{spec.name} was trained on {spec.tile_px} px of {spec.mpp:g} microns; {chosen.tile_px} px of "
                f"{chosen.mpp:g} microns would reach it at {seen_mpp:.4g} microns per pixel; leave --tile-px and "
                "--tile-mpp out, or pass --force"
            )
    return chosen


def same_tiles(encoders: Sequence[TileEncoder], chosen: TileChoice | None = None) -> dict[TileChoice, list[int]]:
    """Return the positions of the encoders by the tiles that they take, in order."""
    groups: dict[TileChoice, list[int]] = {}
    for position, encoder in enumerate(encoders):
        tiles = chosen or TileChoice(encoder.spec.tile_px, encoder.spec.mpp)
        groups.setdefault(tiles, []).append(position)
    return groups
