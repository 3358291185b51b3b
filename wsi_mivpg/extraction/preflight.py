"""What is refused before any work: not enough disk for the bags that a run would write.

An estimate from the headers of a few slides; no pixel is read.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from wsi_mivpg.encoders.registry import find_spec
from wsi_mivpg.errors import EncoderError, OutputError, WsiMivpgError
from wsi_mivpg.extraction.devices import RunChoice
from wsi_mivpg.extraction.inputs import SlideInput

_SAMPLED = 8
_TISSUE_SHARE = 0.5
"""Of a slide, at most in most cohorts; a resection of one organ may have more, a biopsy has far less."""
_OTHER_BYTES_PER_TILE = 28
_BYTES_PER_BAG = 20_000
_UNKNOWN_DIM = 2560
_MOST_TOKENS = 785
"""Of a picture: patches of 8 px, and a class token."""


def checked_disk(slides: Sequence[SlideInput], out_dir: Path, choice: RunChoice) -> str:
    """Return a line that says how much disk the bags will take at most, about, and how much there is.

    Args:
        slides: all slides of the run; those whose bags are there count as nothing.
        out_dir: folder of bags; it exists.
        choice: the run's settings.

    Raises:
        OutputError: there is less than that, and the run is not forced.
    """
    to_do = [slide for slide in slides if not (out_dir / f"{slide.slide_id}.h5").exists() or choice.overwrite]
    needed = _bytes_per_slide(to_do, choice) * len(to_do)
    free = shutil.disk_usage(out_dir).free
    line = (
        f"{len(to_do)} of {len(slides)} slides to do; about {_shown(needed)} at most, {_shown(free)} free in {out_dir}"
    )
    if needed > free and not choice.force:
        raise OutputError(f"{line}; free space there, choose another --out, or pass --force")
    return line


def _bytes_per_slide(slides: Sequence[SlideInput], choice: RunChoice) -> float:
    step = max(1, len(slides) // _SAMPLED)
    counts = [count for slide in slides[::step][:_SAMPLED] if (count := _most_tiles(slide, choice)) is not None]
    n_tiles = mean(counts) if counts else 0.0
    dims = [_dim(one.name) for one in choice.encoders]
    return sum(_BYTES_PER_BAG + n_tiles * (2 * dim + _OTHER_BYTES_PER_TILE) for dim in dims)


def _most_tiles(slide: SlideInput, choice: RunChoice) -> float | None:
    """Return about how many tiles a slide has, None where it cannot be opened (which is no matter here)."""
    if slide.is_picture:
        return _MOST_TOKENS
    if slide.patches is not None:
        return len(slide.patches.paths)
    try:
        spec = find_spec(choice.encoders[0].name)
        side_um = (choice.tile_px or spec.tile_px) * (choice.tile_mpp or spec.mpp)
    except EncoderError:
        side_um = 112.0
    try:
        with choice.settings.open(slide.source, slide.mpp) as opened:
            width, height = opened.size_px
            return width * height * (opened.mpp / side_um) ** 2 * _TISSUE_SHARE
    except WsiMivpgError:
        return None


def _dim(encoder: str) -> int:
    try:
        return find_spec(encoder).dim
    except EncoderError:
        return _UNKNOWN_DIM  # an encoder of the user's own


def _shown(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
