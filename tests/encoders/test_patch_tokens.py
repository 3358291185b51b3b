"""Tokens kept in place of a vector per tile: which there are, in which order, and what has none."""

from functools import cache

import numpy as np
import pytest
import torch

from tests.encoders.reference import pixels_of, random_vit, vit_tokens
from tests.encoders.test_network_encoder import with_lively_norms
from tests.encoders.test_published_networks import TINY_VIT, tiles_for, tiny, written
from wsi_mivpg.encoders import find_spec
from wsi_mivpg.encoders.architectures import build, pooled, with_tokens
from wsi_mivpg.encoders.load import load_encoder
from wsi_mivpg.encoders.published import load_spec
from wsi_mivpg.errors import EncoderError

CONVOLUTIONS = pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet50-clam", "ctranspath"])


@cache
def untrained(name):
    """Return a published network with random weights that do not let anything vanish."""
    torch.manual_seed(0)
    return with_lively_norms(build(find_spec(name)))


@pytest.mark.parametrize(
    ("name", "n_tokens", "dim"),
    [
        ("blip2-eva-vit-g", 1 + 256, 1408),
        ("uni2-h", 1 + 256, 1536),  # its eight registers are left out
        ("virchow", 1 + 256, 1280),
        ("phikon", 1 + 196, 768),
        ("hibou-b", 1 + 256, 768),
        ("efficientnet-lite0", 49, 1280),
        ("resnet50-clam", 196, 1024),
        ("ctranspath", 49, 768),
    ],
)
def test_the_tokens_of_published_networks(name, n_tokens, dim):
    spec = find_spec(name)
    with torch.device("meta"), torch.inference_mode():
        kept, network = with_tokens(spec, build(spec))
        features = network.eval()(torch.empty(2, 3, spec.tile_px, spec.tile_px))
    assert (kept.n_tokens, kept.dim) == (n_tokens, n_tokens * dim)
    assert features.shape == (2, kept.dim)
    assert kept.name == f"{name}+patch-tokens"


def test_tokens_are_the_class_token_and_then_the_patches_without_registers(tmp_path):
    state = random_vit(hidden=85, mlp="swiglu", n_registers=4, positions="all")
    spec = tiny("virchow2", 64, **TINY_VIT, mlp_ratio=5.33334)
    path = written(state, tmp_path / "model.safetensors")
    tiles = tiles_for(spec)
    encoder = load_spec(spec, weights=path, precision="fp32", patch_tokens=True)
    wanted = vit_tokens(state, pixels_of(tiles, spec), mlp="swiglu")
    wanted = torch.cat([wanted[:, :1], wanted[:, 5:]], dim=1).numpy()
    assert encoder.spec.n_tokens == 1 + 4
    found = encoder.encode(tiles).reshape(wanted.shape)
    assert np.abs(found - wanted).max() < 3e-3 * np.abs(wanted).max()


@CONVOLUTIONS
def test_the_mean_over_the_cells_of_a_feature_map_is_the_pooled_vector(name):
    spec, network = find_spec(name), untrained(name)
    pixels = torch.randn(1, 3, spec.tile_px, spec.tile_px)
    with torch.inference_mode():
        kept, with_cells = with_tokens(spec, network)
        cells = with_cells(pixels).reshape(kept.n_tokens, -1)
        vector = pooled(spec, network)(pixels)[0]
    assert vector.std() > 0
    assert torch.allclose(cells.mean(dim=0), vector, atol=1e-5 * float(vector.abs().max()) + 1e-6)


@CONVOLUTIONS
def test_cells_lie_row_by_row(name):
    """What changes in the lower left corner of a tile changes the cells there most."""
    spec = find_spec(name)
    with torch.inference_mode():
        kept, network = with_tokens(spec, untrained(name))
        pixels = torch.randn(1, 3, spec.tile_px, spec.tile_px)
        changed = pixels.clone()
        changed[:, :, -40:, :40] += 3
        difference = (network(changed) - network(pixels)).reshape(kept.n_tokens, -1).norm(dim=1)
    side = int(kept.n_tokens**0.5)
    cells, half = difference.reshape(side, side), side // 2
    corners = [cells[:half, :half], cells[:half, -half:], cells[-half:, :half], cells[-half:, -half:]]
    means = [float(corner.mean()) for corner in corners]
    assert max(means) == means[2] > 1.2 * sorted(means)[-2]


@pytest.mark.parametrize("name", ["plip", "conch", "genbio-pathfm"])
def test_an_encoder_whose_features_are_no_tokens_is_refused(name):
    with pytest.raises(EncoderError, match=rf"{name} come from a head .*blip2-eva-vit-g"):
        with_tokens(find_spec(name), torch.nn.Identity())


def test_an_encoder_of_ones_own_states_its_tokens_or_is_refused():
    with pytest.raises(EncoderError, match="one vector per tile"):
        load_encoder("tests.extraction.driver:mean_colour", patch_tokens=True)
    assert load_encoder("tests.extraction.driver:quarters", patch_tokens=True).spec.n_tokens == 4


def test_a_model_of_pictures_that_is_given_a_slide_says_how_bags_are_made():
    with pytest.raises(EncoderError, match=r"extract PICTURES --encoder uni2-h --patch-tokens"):
        load_encoder("uni2-h+patch-tokens")
