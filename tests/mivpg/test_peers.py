"""The benchmark's peer is TransMIL's layer, without its bugs."""

import pytest
import torch
from torch.nn import functional as F

from mivpg import NystroemAttention
from wsi_mivpg.mivpg import MivpgConfig
from wsi_mivpg.mivpg.attention import Packed


def _layer(landmarks: int, iterations: int) -> NystroemAttention:
    torch.manual_seed(0)
    config = MivpgConfig(hidden_size=16, num_attention_heads=2, encoder_hidden_size=12)
    return NystroemAttention(config, landmarks, iterations).double().eval()


def test_with_a_landmark_for_every_instance_it_is_exact_attention() -> None:
    layer = _layer(landmarks=20, iterations=40)
    query, key, value = (torch.randn(1, 2, 20, 8, dtype=torch.float64) for _ in range(3))
    exact = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(layer.attend(query, key, value), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 7, 50, 64, 65])
def test_every_row_is_that_instances_own_whatever_the_length(count: int) -> None:
    """With equal instances all rows are alike away from the ends of the convolution: no padding is ever read."""
    layer = _layer(landmarks=8, iterations=6)
    instance = torch.randn(1, 12, dtype=torch.float64)
    with torch.no_grad():
        layer.convolution.weight.zero_()
        updated = layer(Packed(instance.expand(count, -1), [count]), torch.zeros(1)).instances
        alone = layer(Packed(instance, [1]), torch.zeros(1)).instances
    torch.testing.assert_close(updated, alone.expand(count, -1), atol=1e-3, rtol=0)
