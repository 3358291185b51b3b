"""What `--fast-decode` changes: pixels (PSNR) and features (cosine), against exact area resampling.

    python benchmarks/fast_decode.py SLIDE... [--tiles 200]

Two controls stand beside it: Pillow's default resize of the same level-0 pixels, which other tools use, and the exact
features of the next tile, which says how far apart different tissue is.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from wsi_mivpg.encoders.load import load_encoder
from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.slides import Slide, open_slide, stream_regions
from wsi_mivpg.tiling import plan_tiles
from wsi_mivpg.tissue import find_tissue


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", type=Path, nargs="+")
    parser.add_argument("--tiles", type=int, default=200)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.encoder)
    print("| slide | compared with exact | PSNR dB, median | features' cosine, median | least |\n|---|---|---|---|---|")
    for path in arguments.slides:
        for row in compared(path, encoder, arguments.tiles):
            print(f"| {path.name} | {row[0]} | {row[1]} | {row[2]:.4f} | {row[3]:.4f} |")


def compared(path: Path, encoder: TileEncoder, count: int) -> list[tuple[str, str, float, float]]:
    """Return (what, PSNR, median cosine, least cosine) for fast decode and the controls."""
    spec = encoder.spec
    with open_slide(path) as exact, open_slide(path, fast_decode=True) as fast:
        tissue = find_tissue(exact)
        plan = plan_tiles(exact.size_px, exact.mpp, target_mpp=spec.mpp, tile_px=spec.tile_px, coverage=tissue.coverage)
        step = max(1, len(plan) // count)
        corners = plan.coords[::step]
        right, quick = (read(slide, corners, spec.tile_px, spec.mpp) for slide in (exact, fast))
        side_l0 = round(plan.tile_size_l0)
        pillow = np.stack(
            [
                np.asarray(
                    Image.fromarray(exact.read_level(x, y, 0, (side_l0, side_l0))).resize((spec.tile_px, spec.tile_px))
                )
                for x, y in corners.tolist()
            ]
        )
    features = [encoder.encode(pixels).astype(np.float64) for pixels in (right, quick, pillow)]
    rows = []
    for name, pixels, other in (
        ("--fast-decode", quick, features[1]),
        ("Pillow's default resize", pillow, features[2]),
        ("the next tile", None, np.roll(features[0], 1, axis=0)),
    ):
        cosines = cosine(features[0], other)
        psnr = "–" if pixels is None else f"{np.median(psnr_db(right, pixels)):.1f}"
        rows.append((name, psnr, float(np.median(cosines)), float(cosines.min())))
    return rows


def read(slide: Slide, corners: np.ndarray, tile_px: int, mpp: float) -> np.ndarray:
    """Return all tiles as uint8 (N, tile_px, tile_px, 3)."""
    return np.concatenate([batch.pixels for batch in stream_regions(slide, corners, tile_px, mpp)])


def psnr_db(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each pair of tiles, float64 (N,)."""
    error = ((one.astype(np.float64) - two) ** 2).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-9))


def cosine(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, float64 (N,)."""
    return (one * two).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1))


if __name__ == "__main__":
    main()
