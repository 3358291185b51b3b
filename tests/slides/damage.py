"""Damaged and hostile slide files, and what must become of them: an answer or a named error. Shared with the fuzzer.

python -m tests.slides.damage --minutes 5    # each file in a process of its own, with limits on time and memory
"""

import argparse
import io
import multiprocessing
import resource
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from wsi_mivpg.errors import WsiMivpgError
from wsi_mivpg.slides import open_slide, stream_regions

MOST_SECONDS = 60
MOST_BYTES = 3 << 30
LAYOUTS = (
    {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
    {"compression": "jpeg", "photometric": "rgb"},
    {"compression": "zlib", "photometric": "rgb", "predictor": True},
    {"compression": "lzw", "photometric": "rgb"},
    {"photometric": "rgb"},
)


def healthy(layout: int, big: bool = False) -> bytes:
    """Return the bytes of a two-level tiled TIFF of 600 x 500 px at 0.5 mpp."""
    pixels = np.random.default_rng(layout).integers(0, 256, (500, 600, 3), dtype=np.uint8)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, bigtiff=big) as tiff:
        options = {"tile": (256, 256), "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
        tiff.write(pixels, subfiletype=0, **options, **LAYOUTS[layout])
        tiff.write(pixels[::4, ::4], subfiletype=1, **options, **LAYOUTS[layout])
    return stream.getvalue()


def read_all(path: Path) -> str:
    """Open, read and stream a slide; return what became of it: "read", or the error's kind.

    Raises:
        AssertionError: an error that does not name the file.
    """
    try:
        with open_slide(path, mpp=0.5) as slide:
            slide.thumbnail(200)
            corners = np.array([(x, y) for y in (0, 200, 244) for x in (0, 130, 344)], dtype=np.int64)
            failures = [why for batch in stream_regions(slide, corners, 256, 0.5) for why in batch.failures.values()]
            assert all(path.name in why for why in failures)
            return "partly read" if failures else "read"
    except WsiMivpgError as error:
        if path.name not in str(error):
            raise AssertionError(f"it does not name the file: {error}") from error
        return type(error).__name__


def entries(content: bytes) -> list[int]:
    """Return the positions of all 12-byte directory entries of a classic little-endian TIFF."""
    found, at = [], struct.unpack_from("<I", content, 4)[0]
    while at:
        count = struct.unpack_from("<H", content, at)[0]
        found += [at + 2 + 12 * i for i in range(count)]
        at = struct.unpack_from("<I", content, at + 2 + 12 * count)[0]
    return found


def damaged(layout: int, seed: int) -> bytes:
    """Return a healthy file after one to six random injuries: cuts, flips, wild values, loops of directories."""
    rng = np.random.default_rng(seed)
    content = bytearray(healthy(layout))
    positions = entries(bytes(content))
    for _ in range(int(rng.integers(1, 7))):
        kind = int(rng.integers(5))
        if kind == 0:
            del content[int(rng.integers(8, max(9, len(content)))) :]
        elif kind == 1:
            content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            at = positions[int(rng.integers(len(positions)))] + int(rng.choice([0, 2, 4, 8]))
            wild = int(rng.choice([0, 1, 2, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 65_500, 1 << 20, len(content)]))
            content[at : at + 4] = struct.pack("<I", wild)
        elif kind == 3:
            at = int(rng.integers(len(content)))
            content[at : at + 64] = rng.integers(0, 256, min(64, len(content) - at), dtype=np.uint8).tobytes()
        else:
            first = struct.unpack_from("<I", content, 4)[0]
            at = positions[-1] + 12
            content[at : at + 4] = struct.pack("<I", first)
    return bytes(content)


def _limited(path: Path, send: object) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    send.send(read_all(path))  # type: ignore[attr-defined]


def main() -> None:
    """Read damaged files until the time is over; name those that crash, hang or raise anything else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    outcomes: dict[str, int] = {}
    seed = arguments.first_seed
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < until:
            layout = seed % len(LAYOUTS)
            path = Path(folder) / f"damaged-{seed}.tiff"
            path.write_bytes(damaged(layout, seed))
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_limited, args=(path, send))
            process.start()
            process.join(MOST_SECONDS)
            outcome = receive.recv() if receive.poll() else f"FAILED with exit code {process.exitcode}"
            if process.is_alive():
                process.kill()
                outcome = f"FAILED: still running after {MOST_SECONDS} s"
            if outcome.startswith("FAILED"):
                print(f"seed {seed}, layout {layout}: {outcome}")
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            path.unlink()
            seed += 1
    print(f"seeds {arguments.first_seed} to {seed - 1}: {outcomes}")


if __name__ == "__main__":
    main()
