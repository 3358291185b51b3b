"""How a test's bag was made: `dataclasses.replace` what matters to the test."""

from pathlib import Path

import numpy as np

from wsi_mivpg.bags import BagProvenance, FeatureBag, write_bag

PROVENANCE = BagProvenance(
    slide_id="s1",
    slide_path="s1.tif",
    slide_fingerprint="f" * 64,
    slide_width_px=4000,
    slide_height_px=3000,
    slide_mpp=0.2528,
    mpp_source="file",
    reader="openslide",
    target_mpp=0.5,
    tile_px=224,
    stride_px=224,
    tile_size_l0=224 * 0.5 / 0.2528,
    min_tissue=0.25,
    tissue_method="test",
    encoder="some-encoder",
    encoder_weights_sha256="abc",
    feature_dim=12,
    precision="fp32",
    plan_digest="d" * 64,
    coords_known=True,
    case_id="",
    settings_hash="b" * 64,
    version="0",
    torch_version="2.14.1",
)


def bag_on_disk(path: Path, provenance: BagProvenance = PROVENANCE, count: int = 3) -> FeatureBag:
    """Write a bag of zeros, its tiles in a row, and open it."""
    coords = np.column_stack([np.arange(count), np.zeros(count, np.int64)]) * 300
    features = np.zeros((count, provenance.feature_dim), np.float16)
    write_bag(path, features, coords, np.ones(count, np.float32), provenance)
    return FeatureBag.open(path)
