"""Write and read a large bag beside a plain contiguous HDF5 dataset of the same features, in one run.

    python benchmarks/bags.py [--tiles 100000] [--dim 1536] [--folder out/bags] [--json out/bags.json]

Both are written to the same folder and read back whole, in turn, five times each; medians count. Our bag is also
synced to the disk and moved into place, so that it appears whole or not at all; the plain dataset is measured as h5py
leaves it and, for a like comparison, synced too. Then the memory map: opening it, and 1,000 random rows through it.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from wsi_mivpg.bags import BagProvenance, FeatureBag, write_bag

REPEATS = 5


def main() -> None:
    """Measure, print one table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--folder", type=Path, help="where files are written for a moment; default: the temporary one")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    features = rng.standard_normal((arguments.tiles, arguments.dim), dtype=np.float32).astype(np.float16)
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        seconds = measured(Path(name), features)
    print(f"{arguments.tiles} x {arguments.dim} float16, {features.nbytes / 1e6:.0f} MB, medians of {REPEATS}")
    for step, value in seconds.items():
        print(f"  {step:<34}{value * 1000:9.1f} ms")
    both = seconds["ours: write"] + seconds["ours: read"]
    for plain in ("plain", "plain, synced"):
        ratio = both / (seconds[f"{plain}: write"] + seconds["plain: read"])
        print(f"write + read, ours / {plain:<14}{ratio:6.2f}")
        seconds[f"ratio to {plain}"] = ratio
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(seconds, indent=1), encoding="utf-8")


def measured(folder: Path, features: np.ndarray) -> dict[str, float]:
    """Return step -> median seconds."""
    ours, plain = folder / "ours.h5", folder / "plain.h5"
    count, dim = features.shape
    coords = np.stack([np.arange(count) % 400, np.arange(count) // 400], axis=1) * 448
    grid, tissue = (coords // 448).astype(np.int32), np.ones(count, np.float32)
    rows = np.random.default_rng(1).integers(0, count, 1000)

    def write_ours() -> None:
        write_bag(ours, features, coords, tissue, provenance(dim), grid=grid)

    def write_plain(sync: bool = False) -> None:
        with h5py.File(plain, "w") as file:
            file.create_dataset("features", data=features)
        if sync:
            with plain.open("rb") as written:
                os.fsync(written.fileno())

    def read_plain() -> np.ndarray:
        with h5py.File(plain) as file:
            return file["features"][...]

    steps: dict[str, Callable[[], object]] = {
        "plain: write": write_plain,
        "plain, synced: write": lambda: write_plain(sync=True),
        "ours: write": write_ours,
        "plain: read": read_plain,
        "ours: read": lambda: FeatureBag.open(ours).features,
        "ours: memory map": lambda: FeatureBag.open(ours).features_view(),
        "ours: 1000 random rows of the map": lambda: FeatureBag.open(ours).features_view()[rows],
        "ours: rows 5000 to 6000": lambda: FeatureBag.open(ours).features_at(slice(5000, 6000)),
    }
    times: dict[str, list[float]] = {step: [] for step in steps}
    for _ in range(REPEATS):
        for step, run in steps.items():
            started = time.perf_counter()
            run()
            times[step].append(time.perf_counter() - started)
    assert np.array_equal(FeatureBag.open(ours).features_view(), features)
    return {step: statistics.median(values) for step, values in times.items()}


def provenance(dim: int) -> BagProvenance:
    """Return how an invented bag was made."""
    return BagProvenance(
        slide_id="ours",
        slide_path="ours.svs",
        slide_fingerprint="0" * 64,
        slide_width_px=180_000,
        slide_height_px=120_000,
        slide_mpp=0.25,
        mpp_source="file",
        reader="openslide",
        target_mpp=0.5,
        tile_px=224,
        stride_px=224,
        tile_size_l0=448.0,
        min_tissue=0.25,
        tissue_method="otsu/3",
        encoder="uni2-h",
        encoder_weights_sha256="0" * 64,
        feature_dim=dim,
        precision="fp32",
        plan_digest="0" * 64,
        coords_known=True,
        case_id="",
        settings_hash="0" * 64,
        version="0",
        torch_version="0",
    )


if __name__ == "__main__":
    main()
