"""Encoders of one's own: a function named on the command line, or an entry point of an installed package."""

import sys

import numpy as np
import pytest

from wsi_mivpg.encoders.load import load_encoder
from wsi_mivpg.errors import EncoderError

MODULE = """
import numpy as np
from wsi_mivpg.encoders import EncoderSpec

class Brightness:
    def __init__(self, device, weights):
        self.device, self.weights = device, weights
        self.spec = EncoderSpec(name="brightness", dim=1, tile_px=8, mpp=1.0, mean=(0, 0, 0), std=(1, 1, 1),
                                licence="CC0-1.0", gated=False, weights_sha256="0" * 64)
    def encode(self, tiles):
        return tiles.mean(axis=(1, 2, 3), dtype=np.float32)[:, None].astype(np.float16)

def build(*, device, weights):
    return Brightness(device, weights)

def wrong(*, device, weights):
    return "not an encoder"
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A package installed on this machine, with an entry point."""
    (tmp_path / "own_encoder_module.py").write_text(MODULE)
    info = tmp_path / "own_encoder-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-encoder\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wsi_mivpg.encoders]\nbrightness = own_encoder_module:build\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_encoder_module", None)


@pytest.mark.parametrize("name", ["own_encoder_module:build", "brightness"])
def test_a_function_and_an_entry_point_give_the_users_own_encoder(own_module, name):
    encoder = load_encoder(name, device="cpu", weights=own_module / "w.bin")
    assert encoder.spec.name == "brightness"
    assert (encoder.device, encoder.weights) == ("cpu", own_module / "w.bin")
    assert encoder.encode(np.full((2, 8, 8, 3), 7, np.uint8)).tolist() == [[7.0], [7.0]]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no_such_module:build", "no_such_module"),
        ("own_encoder_module:absent", "absent"),
        ("own_encoder_module:wrong", "gave a str"),
        (":build", "cannot import"),
        ("brightnes", "unknown encoder"),
    ],
)
def test_what_is_no_encoder_is_refused(own_module, name, complaint):
    with pytest.raises(EncoderError, match=complaint):
        load_encoder(name)
