"""Read tiles with this package and with its peers, in one run, and print one table of ratios.

    pip install -c constraints.txt -e '.[bench]'
    python benchmarks/read.py [--slides FOLDER] [--seconds 2] [--json out/read.json]

Two tasks on each slide, over a block of neighbouring tiles in its middle: 256 px at native resolution, 100 px off the
file's own tiles; and 256 px at 0.5 microns per pixel (from level 0 where the file has nothing between). Peers that
do not resize themselves are given cv2's area filter; "TRIDENT path" is that tool's way of reading rebuilt: OpenSlide,
RGB, Pillow's default resize. Every reader runs warm, in turn, and its best of three passes counts. A peer that is not
installed, or cannot open a slide, is named with the reason.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image

from wsi_mivpg.slides import open_slide, stream_regions

SIDE = 256
TARGET_MPP = 0.5
OFFSET = 100
PASSES = 3
NAMES = ("metaplasia_HE.tiff", "lungscc_HE3.tiff", "CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs")


@dataclass(frozen=True)
class Task:
    """Tiles to read: corners int64 (N, 2) at level 0, side at level 0, and their mpp."""

    path: Path
    slide_mpp: float
    corners: np.ndarray
    side_l0: int
    mpp: float


Read = Callable[[Task, int], int]


def main() -> None:
    """Run all readers on all slides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=Path, default=Path("../shared/data/slides"))
    parser.add_argument("--tiles", type=int, default=400, help="tiles per task")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--gigapixel", type=Path, default=Path("out/gigapixel.tiff"), help="made if absent")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if not arguments.gigapixel.is_file():
        write_gigapixel(arguments.gigapixel)
    paths = [arguments.slides / name for name in NAMES] + [arguments.gigapixel]
    results = []
    for path in paths:
        if not path.is_file():
            print(f"{path}: not here, skipped")
            continue
        for name, task in tasks(path, arguments.tiles):
            for threads in arguments.threads:
                speeds, reasons = measure(task, threads)
                results.append({"slide": path.name, "task": name, "threads": threads, "tiles_per_s": speeds})
                print_row(path.name, name, threads, len(task.corners), speeds, reasons)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def tasks(path: Path, count: int) -> Iterator[tuple[str, Task]]:
    """Yield the two tasks of a slide; the one that would enlarge is left out."""
    with open_slide(path, mpp=0.25 if path.name.startswith("TCGA") else None) as slide:
        for name, mpp, offset in (("native, unaligned", slide.mpp, OFFSET), ("0.5 mpp", TARGET_MPP, 0)):
            side_l0 = round(SIDE * mpp / slide.mpp)
            if mpp < slide.mpp * 0.99 or (name == "0.5 mpp" and side_l0 == SIDE):
                continue
            columns, rows = ((length - offset) // side_l0 for length in slide.size_px)
            wide = min(columns, max(1, round((count * columns / rows) ** 0.5)))
            high = min(rows, max(1, count // wide))
            left, top = (columns - wide) // 2, (rows - high) // 2
            grid = [(left + c, top + r) for r in range(high) for c in range(wide)]
            corners = np.array(grid, dtype=np.int64) * side_l0 + offset
            yield name, Task(path, slide.mpp, corners, side_l0, mpp)


def measure(task: Task, threads: int) -> tuple[dict[str, float], dict[str, str]]:
    """Return tiles per second of every reader, and why some have none."""
    speeds: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for _ in range(PASSES):
        for name, read in READERS.items():
            if name in reasons:
                continue
            try:
                started = time.perf_counter()
                count = read(task, threads)
                speed = count / (time.perf_counter() - started)
            except Exception as error:  # a peer's own error is a result
                reasons[name] = f"{type(error).__name__}: {error}".splitlines()[0][:80]
                continue
            speeds[name] = max(speeds.get(name, 0.0), speed)
    return speeds, reasons


def print_row(
    slide: str, task: str, threads: int, count: int, speeds: dict[str, float], reasons: dict[str, str]
) -> None:
    """Print one block of the table: tiles per second, and the ratio of ours to each peer's."""
    ours = speeds.get("ours", float("nan"))
    print(f"\n{slide} · {task} · {count} tiles · {threads} thread{'s' if threads > 1 else ''}")
    for name, speed in sorted(speeds.items(), key=lambda item: -item[1]):
        print(f"  {name:<28}{speed:8.0f} tiles/s   ours is {ours / speed:5.2f} times as fast")
    for name, reason in reasons.items():
        print(f"  {name:<28}       – {reason}")


def read_ours(task: Task, threads: int, fast_decode: bool = False) -> int:
    """This package's stream."""
    done = 0
    mpp = 0.25 if task.path.name.startswith("TCGA") else None
    with open_slide(task.path, mpp=mpp, fast_decode=fast_decode) as slide:
        for batch in stream_regions(slide, task.corners, SIDE, task.mpp, batch_size=32, threads=threads):
            done += len(batch)
            assert not batch.failures
    return done


def read_ours_fast(task: Task, threads: int) -> int:
    """This package's stream with the JPEG decoder's own scaling."""
    return read_ours(task, threads, fast_decode=True)


def in_threads(task: Task, threads: int, open_reader: Callable[[], Any], read: Callable[[Any, int, int], Any]) -> int:
    """Share the tiles among threads in runs, each thread with a reader of its own."""
    parts = np.array_split(task.corners, threads)
    with ExitStack() as stack:
        readers = [open_reader() for _ in parts]
        for reader in readers:
            if hasattr(reader, "close"):
                stack.callback(reader.close)

        def run(reader: Any, corners: np.ndarray) -> int:
            for x, y in corners.tolist():
                tile = read(reader, x, y)
                assert tile.shape == (SIDE, SIDE, 3)
            return len(corners)

        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(run, readers, parts))


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """Area resize to the tile's side where it is larger."""
    if pixels.shape[0] == SIDE:
        return pixels
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def read_openslide(task: Task, threads: int) -> int:
    """OpenSlide, RGB, area resize."""
    import openslide

    side = (task.side_l0, task.side_l0)
    return in_threads(
        task,
        threads,
        lambda: openslide.OpenSlide(task.path),
        lambda reader, x, y: shrunk(np.asarray(reader.read_region((x, y), 0, side).convert("RGB"))),
    )


def read_trident_path(task: Task, threads: int) -> int:
    """OpenSlide, RGB, Pillow's default resize."""
    import openslide

    side = (task.side_l0, task.side_l0)

    def read(reader: Any, x: int, y: int) -> np.ndarray:
        tile: Image.Image = reader.read_region((x, y), 0, side).convert("RGB")
        return np.asarray(tile if task.side_l0 == SIDE else tile.resize((SIDE, SIDE)))

    return in_threads(task, threads, lambda: openslide.OpenSlide(task.path), read)


def read_tiffslide(task: Task, threads: int) -> int:
    """TiffSlide, area resize."""
    import tiffslide

    side = (task.side_l0, task.side_l0)
    return in_threads(
        task,
        threads,
        lambda: tiffslide.TiffSlide(task.path),
        lambda reader, x, y: shrunk(np.asarray(reader.read_region((x, y), 0, side, as_array=True))),
    )


def read_pyvips(task: Task, threads: int) -> int:
    """pyvips' Region.fetch over its own reader, area resize."""
    import pyvips

    pyvips.cache_set_max(0)  # else it keeps decoded tiles from one pass to the next
    side = task.side_l0

    def open_region() -> Any:
        image = pyvips.Image.new_from_file(str(task.path), access="random")
        return pyvips.Region.new(image[:3]), image

    def read(reader: Any, x: int, y: int) -> np.ndarray:
        data = np.frombuffer(reader[0].fetch(x, y, side, side), dtype=np.uint8)
        return shrunk(data.reshape(side, side, 3))

    return in_threads(task, threads, open_region, read)


def read_cucim(task: Task, threads: int) -> int:
    """cuCIM on the CPU, one region at a time, area resize."""
    from cucim import CuImage

    side = (task.side_l0, task.side_l0)
    return in_threads(
        task,
        threads,
        lambda: CuImage(str(task.path)),
        lambda reader, x, y: shrunk(np.asarray(reader.read_region((x, y), side, 0))),
    )


def read_cucim_batch(task: Task, threads: int) -> int:
    """cuCIM's batches on the CPU, area resize."""
    from cucim import CuImage

    side = (task.side_l0, task.side_l0)
    image = CuImage(str(task.path))
    done = 0
    for batch in image.read_region(task.corners.tolist(), side, 0, batch_size=32, num_workers=threads):
        pixels = np.asarray(batch)
        tiles = pixels if pixels.ndim == 4 else pixels[None]
        done += sum(shrunk(tile).shape == (SIDE, SIDE, 3) for tile in tiles)
    return done


def read_fastslide(task: Task, threads: int) -> int:
    """FastSlide, area resize."""
    import fastslide

    side = (task.side_l0, task.side_l0)
    return in_threads(
        task,
        threads,
        lambda: fastslide.FastSlide.from_file_path(str(task.path)),
        lambda reader, x, y: shrunk(reader.read_region((x, y), 0, side).numpy()[..., :3]),
    )


READERS: dict[str, Read] = {
    "ours": read_ours,
    "ours, --fast-decode": read_ours_fast,
    "TRIDENT path": read_trident_path,
    "OpenSlide": read_openslide,
    "TiffSlide": read_tiffslide,
    "pyvips": read_pyvips,
    "cuCIM": read_cucim,
    "cuCIM, batches": read_cucim_batch,
    "FastSlide": read_fastslide,
}


def write_gigapixel(path: Path, side_px: int = 32_768, tile_px: int = 256) -> None:
    """Write a slide of 1.07 gigapixels at 0.25 mpp, levels 1/4/16, from rendered tissue repeated in 64 tiles."""
    from wsi_mivpg.cohorts.rendered_tissue import random_stain, render

    rng = np.random.default_rng(0)
    texture = render("glandular_tumour", 8 * tile_px, random_stain(rng), rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    jpeg = {"photometric": "ycbcr", "subsampling": (2, 2), "compression": "jpeg", "compressionargs": {"level": 80}}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for downsample in (1, 4, 16):
            shape = (side_px // downsample, side_px // downsample, 3)
            small = cv2.resize(texture, None, fx=1 / downsample, fy=1 / downsample, interpolation=cv2.INTER_AREA)
            small = np.tile(small, (downsample, downsample, 1))
            per_side, in_texture = shape[0] // tile_px, small.shape[0] // tile_px

            def tiles(small: np.ndarray = small, n: int = per_side, k: int = in_texture) -> Iterator[np.ndarray]:
                for row in range(n):
                    for column in range(n):
                        y, x = row % k * tile_px, column % k * tile_px
                        yield np.ascontiguousarray(small[y : y + tile_px, x : x + tile_px])

            tiff.write(
                tiles(),
                shape=shape,
                dtype=np.uint8,
                tile=(tile_px, tile_px),
                subfiletype=0 if downsample == 1 else 1,
                resolution=(40_000 / downsample, 40_000 / downsample),
                resolutionunit="CENTIMETER",
                **jpeg,
            )


if __name__ == "__main__":
    main()
