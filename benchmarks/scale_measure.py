"""Measure what `benchmarks/scale.py` extrapolates from, on this machine.

    python benchmarks/scale_measure.py [--slide SLIDE ...] [--folder out/scale]

Prints TOML for `benchmarks/scale.toml`: operations for a tile by encoder (counted on torch's meta device, without
weights), what share of a slide's file is read for its tiles, what status.csv costs by the number of slides in a folder,
and what a folder of many bags costs to list. Nothing here needs a GPU or an encoder's weights.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wsi_mivpg.encoders.architectures import build, pooled
from wsi_mivpg.encoders.registry import REGISTRY
from wsi_mivpg.extraction.ledger import Ledger, StatusRow
from wsi_mivpg.slides import open_slide, stream_regions
from wsi_mivpg.tiling import plan_tiles
from wsi_mivpg.tissue import find_tissue

ENCODERS = (
    "efficientnet-lite0",
    "resnet50-clam",
    "kaiko-vits16",
    "phikon",
    "h0-mini",
    "uni",
    "virchow2",
    "uni2-h",
    "prov-gigapath",
    "h-optimus-1",
)
ROWS = (1_000, 10_000, 100_000)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, action="append", default=[])
    parser.add_argument("--folder", type=Path, help="where files are written for a moment; default: the temporary one")
    arguments = parser.parse_args()
    for name in ENCODERS:
        print(f'"{name}" = {gigaflops_per_tile(name):.1f}', flush=True)
    for slide in arguments.slide:
        print(f"# {slide.name}: {slide_figures(slide)}", flush=True)
    for n_rows in ROWS:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            seconds = status_seconds(Path(folder), n_rows)
        print(
            f"# status.csv of {n_rows} slides: {seconds:.3f} s of CPU a write, {1e6 * seconds / n_rows:.1f} us a slide"
        )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(f"# folder of 100,000 files: {listing_seconds(Path(folder), 100_000):.2f} s to list and stat")


def gigaflops_per_tile(name: str) -> float:
    """Return 10^9 floating point operations, a multiplication and an addition being two, for one tile."""
    spec = REGISTRY[name]
    with torch.device("meta"), torch.inference_mode():
        network = pooled(spec, build(spec)).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.empty(1, 3, spec.tile_px, spec.tile_px))
    return counter.get_total_flops() / 1e9


def slide_figures(path: Path) -> str:
    """Return the number of tiles, what share of the file was read for tissue and tiles, and the CPU time."""
    before = _read_bytes()
    with open_slide(path) as slide:
        tissue = find_tissue(slide)
        plan = plan_tiles(slide.size_px, slide.mpp, target_mpp=0.5, tile_px=224, coverage=tissue.coverage)
        found = _read_bytes()
        cpu = _cpu_seconds()
        for _ in stream_regions(slide, plan.coords, 224, 0.5):
            pass
        cpu = _cpu_seconds() - cpu
    read = _read_bytes() - before
    size = path.stat().st_size
    return (
        f"{len(plan.coords)} tiles, file {size / 1e6:.1f} MB, read {read / 1e6:.1f} MB ({read / size:.2f}), "
        f"{(found - before) / 1e6:.1f} of it for tissue, {cpu:.1f} s of CPU for tiles"
    )


def status_seconds(folder: Path, n_rows: int) -> float:
    """Return the median seconds of CPU for bringing status.csv up to date when it has `n_rows`."""
    ledger = Ledger(folder)
    for number in range(n_rows):
        row = StatusRow(f"slide-{number:07d}", f"/slides/slide-{number:07d}.svs", "", "done", 12_000, 0, 60.0, "0.25")
        ledger._fresh[row.slide_id] = row  # `record` would write every few seconds
    seconds = []
    ledger.write()
    late = Ledger(folder)
    for number in range(3):
        row = StatusRow(f"late-{number}", "late.svs", "", "done", 12_000, 0, 60.0, "0.25")
        late._fresh[row.slide_id] = row
        before = _cpu_seconds()
        late.write()
        seconds.append(_cpu_seconds() - before)
    return statistics.median(seconds)


def listing_seconds(folder: Path, n_files: int) -> float:
    """Return the seconds of listing a folder of that many files and asking about each."""
    for number in range(n_files):
        os.close(os.open(folder / f"slide-{number:07d}.h5", os.O_CREAT | os.O_WRONLY))
    started = time.perf_counter()
    with os.scandir(folder) as entries:
        n_seen = sum(entry.stat().st_size == 0 for entry in entries)
    assert n_seen == n_files
    return time.perf_counter() - started


def _read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
