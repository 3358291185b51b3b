"""Running a network: precision, tiles of another size, memory that is too small, threads, and folded batch norms."""

import threading

import numpy as np
import pytest
import timm
import torch
from torch import nn

from wsi_mivpg.encoders import EncoderSpec
from wsi_mivpg.encoders.fold import fold_batch_norms
from wsi_mivpg.encoders.network_encoder import NetworkEncoder, chosen_precision
from wsi_mivpg.errors import EncoderError

HAS_BF16 = chosen_precision("auto", "fp32", "cpu") == "bf16"
SPEC = EncoderSpec(
    name="tiny",
    dim=1280,
    tile_px=64,
    mpp=0.5,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.4),
    licence="Apache-2.0",
    gated=False,
)


def with_lively_norms(network: nn.Module) -> nn.Module:
    """Give batch norms statistics that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return with_lively_norms(timm.create_model("efficientnet_lite0", num_classes=0))


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)


def by_hand(network: nn.Module, tiles: np.ndarray) -> np.ndarray:
    pixels = (tiles / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    with torch.inference_mode():
        return network(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)).numpy()


def test_features_are_those_of_normalised_pixels(network, tiles):
    found = NetworkEncoder(SPEC, network, "cpu").encode(tiles)
    assert found.dtype == np.float16
    assert np.allclose(found, by_hand(network, tiles), rtol=2e-3, atol=2e-3)


@pytest.mark.skipif(not HAS_BF16, reason="this processor does not compute bf16 by itself")
def test_bf16_is_close_to_fp32_and_not_the_same(network, tiles):
    exact, half = (NetworkEncoder(SPEC, network, "cpu", precision).encode(tiles) for precision in ("fp32", "bf16"))
    exact, half = exact.astype(np.float64), half.astype(np.float64)
    cosine = (exact * half).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.995
    assert not np.array_equal(exact, half)


def test_a_tiles_features_depend_neither_on_its_place_nor_on_its_company(network, tiles):
    encoder = NetworkEncoder(SPEC, network, "cpu")
    together = encoder.encode(tiles[:8])
    others = np.random.default_rng(1).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    for place in range(8):
        batch = others.copy()
        batch[place] = tiles[3]
        assert np.array_equal(encoder.encode(batch)[place], together[3])


def test_tiles_of_another_size_are_resized_on_the_device(network):
    ramp = np.broadcast_to(np.linspace(0, 255, 128).astype(np.uint8)[None, None, :, None], (1, 128, 128, 3))
    half = ramp.reshape(1, 64, 2, 64, 2, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    encoder = NetworkEncoder(SPEC, network, "cpu")
    shrunk, wanted = encoder.encode(ramp.copy()).astype(float), encoder.encode(half).astype(float)
    assert np.abs(shrunk - wanted).max() < 0.05 * np.abs(wanted).max()


class Small(nn.Module):
    """Runs out of memory beyond a number of tiles."""

    def __init__(self, network: nn.Module, fits: int) -> None:
        super().__init__()
        self.network, self.fits, self.sizes = network, fits, []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pixels))
        if len(pixels) > self.fits:
            raise torch.OutOfMemoryError("too many tiles")
        return self.network(pixels)


def test_where_memory_is_too_small_tiles_go_in_halves_and_nothing_is_lost(network, tiles):
    small = Small(network, fits=3)
    encoder = NetworkEncoder(SPEC, small, "cpu")
    small = encoder._network
    small.sizes.clear()
    assert np.allclose(encoder.encode(tiles), by_hand(network, tiles), rtol=2e-3, atol=2e-3)
    assert small.sizes == [9, 5, 3, 3, 3]
    assert encoder.most_at_once == 3
    encoder.encode(tiles)
    assert small.sizes[5:] == [3, 3, 3]  # it has learned


def test_one_tile_too_much_is_an_error_with_the_way_out(network, tiles):
    encoder = NetworkEncoder(SPEC, Small(network, fits=1), "cpu")
    encoder._network.fits = 0
    with pytest.raises(EncoderError, match="one tile is too much for the memory of cpu"):
        encoder.encode(tiles)


def test_several_threads_get_their_own_features(network, tiles):
    encoder = NetworkEncoder(SPEC, network, "cpu")
    alone = [encoder.encode(tiles[i : i + 1]) for i in range(8)]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: encoder.encode(tiles[i : i + 1])})) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], alone[i]) for i in range(8))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "mobilenetv3_small_050", "densenet121"])
def test_folded_batch_norms_compute_the_same(name):
    network = with_lively_norms(timm.create_model(name, num_classes=0))
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        before = network(pixels)
        after = fold_batch_norms(network, pixels[:1])(pixels)
        assert torch.equal(network(pixels), before)  # the one given is not changed
    assert torch.allclose(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


def test_folding_leaves_no_pass_of_its_own(network):
    folded = fold_batch_norms(network, torch.rand(1, 3, 64, 64))
    seen = []
    for module in folded.modules():
        if isinstance(module, nn.BatchNorm2d):
            seen.append(isinstance(module.forward.__self__, nn.Sequential))
    assert len(seen) > 40
    assert all(seen)


class Twice(nn.Module):
    """Uses the convolution's output twice, so that its batch norm must not be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        raw = self.convolution(pixels)
        return (raw + self.norm(raw)).mean(dim=(2, 3))


def test_a_network_that_cannot_be_folded_is_left_as_it_is():
    network = with_lively_norms(Twice())
    pixels = torch.rand(2, 3, 8, 8)
    assert fold_batch_norms(network, pixels) is network


@pytest.mark.parametrize(
    ("asked", "problem"), [("fp16", "fp16 needs a GPU"), ("int8", "no precision 'int8'; choose auto")]
)
def test_a_precision_that_cannot_be_had_is_refused(asked, problem):
    with pytest.raises(EncoderError, match=problem):
        chosen_precision(asked, "fp32", "cpu")
