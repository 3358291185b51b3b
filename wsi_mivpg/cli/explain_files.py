"""The files of ``wsi-mivpg explain``: pictures of every map, top tiles at full resolution, and GeoJSON.

Below one folder: ``<method>/<slide>/…png`` and ``<method>/<slide>.geojson``. What they show is found elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsi_mivpg.atomic import replaced, write_text
from wsi_mivpg.cli.case_evidence import TOP_TILES, faithfulness_of, top_tiles_of
from wsi_mivpg.cli.case_panels import THUMBNAIL_PX
from wsi_mivpg.evidence import SCALES, Evidence, SlideTiles, Target, collection, figure, overlay, size_within
from wsi_mivpg.evidence.geojson import BETTER_THAN_RANDOM
from wsi_mivpg.reports import TopTile, file_name
from wsi_mivpg.slides import Slide

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Seen:
    """What is shown of a slide that can be read: uint8 (H, W, 3) of it all, and of tiles at level 0 by their corner."""

    thumbnail: Pixels
    tiles: Mapping[tuple[int, int], Pixels]


def see(slide: Slide, thumbnail: Pixels, tiles: SlideTiles, evidence: Evidence) -> Seen:
    """Read the tiles of an open slide that support anything most, at full resolution.

    Raises:
        SlideError: they cannot be read.
    """
    wanted = {
        (tile.x, tile.y)
        for maps in evidence.weights.values()
        for weights in maps
        for tile in _on(tiles, top_tiles_of(evidence.slides, weights))
    }
    side_px = max(1, round(tiles.side_l0))
    return Seen(thumbnail, {corner: slide.read_region(*corner, side_px, slide.mpp) for corner in sorted(wanted)})


def write_explained(folder: Path, evidence: Evidence, seen: Mapping[str, Seen], texts: Sequence[str]) -> list[Path]:
    """Write the pictures and the GeoJSON of every map, each file whole or not at all; return their paths.

    Pictures of an earlier run that would not be written again are removed.

    Args:
        folder: of the case.
        evidence: its maps, by method.
        seen: by slide id, slides that can be read; the maps of others lie on white.
        texts: what each row of a map is about, as it is shown: the sentences, then the report.

    Raises:
        OutputError: the folder cannot be written.
    """
    written: list[Path] = []
    for method in evidence.weights:
        targets = _targets(evidence, method, texts)
        for slide in evidence.slides:
            if not slide.side_l0:
                continue
            name = Path(file_name(slide.slide_id)).stem
            geojson = folder / method / f"{name}.geojson"
            write_text(geojson, json.dumps(collection(slide, targets, method, TOP_TILES), ensure_ascii=False))
            pictures = _write_pictures(folder / method / name, slide, targets, evidence, method, seen)
            written += [geojson, *pictures]
            for old in (folder / method / name).glob("*_*.png"):
                if old not in pictures:
                    old.unlink()
    return written


def _targets(evidence: Evidence, method: str, texts: Sequence[str]) -> list[Target]:
    count = len(evidence.sentences)
    names = [*(f"Sentence {number}" for number in range(1, count + 1)), "Report"]
    tested = evidence.curves.get(method, [{}] * (count + 1))
    return [
        Target(name, text, weights, _figures(curves) if curves else {})
        for name, text, weights, curves in zip(names, texts, evidence.weights[method], tested, strict=True)
    ]


def _figures(curves: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    found = faithfulness_of(curves)
    return {
        "Deletion beyond random (nats)": found.deletion,
        "Insertion beyond random (nats)": found.insertion,
        BETTER_THAN_RANDOM: int(found.better_than_random),
    }


def _write_pictures(
    folder: Path,
    slide: SlideTiles,
    targets: Sequence[Target],
    evidence: Evidence,
    method: str,
    seen: Mapping[str, Seen],
) -> list[Path]:
    of_slide = seen.get(slide.slide_id)
    if of_slide is None:
        width, height = size_within(slide, THUMBNAIL_PX)
        background = np.full((height, width, 3), 255, np.uint8)
    else:
        background = of_slide.thumbnail
    size = (background.shape[1], background.shape[0])
    pictures: dict[str, Pixels] = {}
    for target in targets:
        key = target.name.lower().replace(" ", "-")
        for scale in SCALES:
            pictures[f"{key}_{scale}"] = figure(slide, target, method, scale, background)
            pictures[f"{key}_{scale}_map"] = overlay(slide, target.weights, scale, size)
        for place, tile in enumerate(top_tiles_of(evidence.slides, target.weights), 1):
            if of_slide is not None and tile.slide_id == slide.slide_id:
                pictures[f"{key}_tile-{place}"] = of_slide.tiles[tile.x, tile.y]
    paths = []
    for name, pixels in pictures.items():
        paths.append(folder / f"{name}.png")
        with replaced(paths[-1]) as temporary:
            Image.fromarray(pixels).save(temporary, "png")
    return paths


def _on(tiles: SlideTiles, found: Sequence[TopTile]) -> list[TopTile]:
    return [tile for tile in found if tile.slide_id == tiles.slide_id]
