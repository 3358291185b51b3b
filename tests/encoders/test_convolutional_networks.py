"""The published networks with convolutions, against torchvision's ResNet and transformers' Swin."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.encoders.published import renamed
from tests.encoders.test_published_networks import assert_gives, tiny, written


def _lively(network, seed=0):
    """Weights and running statistics that make every tensor matter, and features that float16 can hold."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        drawn = torch.rand(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.copy_((2 * drawn - 1) * (4 / tensor[0].numel()) ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(0.5 + drawn)
    return network.eval()


@pytest.mark.parametrize("name", ["resnet50-clam", "lunit-resnet50-bt"])
def test_resnet50_stops_where_the_publisher_stopped(name, tmp_path):
    from torchvision.models.resnet import Bottleneck, ResNet

    oracle = _lively(ResNet(Bottleneck, [1, 1, 1, 1]))
    names = oracle.state_dict()
    spec = tiny(name, 1024 if name.endswith("clam") else 2048, tile_px=64, layers=(1, 1, 1, 1))

    @torch.no_grad()
    def expected(pixels):
        x = oracle.maxpool(oracle.relu(oracle.bn1(oracle.conv1(pixels))))
        x = oracle.layer3(oracle.layer2(oracle.layer1(x)))
        return (x if name.endswith("clam") else oracle.layer4(x)).mean(dim=(2, 3))

    assert_gives(spec, written(names, tmp_path / "model.safetensors"), expected)


def _as_published(swin, stem, folder):
    """CTransPath's names: old timm's Swin with the stem as patch embedding, and buffers and a head that go unused."""
    swin.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    rules = [
        (r"^encoder\.", ""),
        (r"attention\.self\.relative", "attn.relative"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"^layernorm\.", "norm."),
    ]
    out = {}
    for name, tensor in renamed(state, rules).items():
        if name.startswith("embeddings."):
            continue
        if "self.query" in name:
            parts = [state[f"encoder.{name.replace('query', part)}"] for part in ("query", "key", "value")]
            out[name.replace("attention.self.query", "attn.qkv")] = torch.cat(parts)
        elif "attention.self." not in name:
            out[name] = tensor
    out |= {f"patch_embed.{name}": tensor for name, tensor in stem.state_dict().items()}
    unused = ("layers.0.blocks.1.attn_mask", "layers.0.blocks.0.attn.relative_position_index", "head.weight")
    return out | {name: torch.zeros(1) for name in unused}


class _Stem(nn.Module):
    """CTransPath's stem as its paper has it, in the place of transformers' patch embedding."""

    def __init__(self, dim):
        super().__init__()
        first, second = nn.Conv2d(3, dim // 8, 3, 2, 1, bias=False), nn.Conv2d(dim // 8, dim // 4, 3, 2, 1, bias=False)
        norms = nn.BatchNorm2d(dim // 8), nn.BatchNorm2d(dim // 4)
        self.proj = nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU(), nn.Conv2d(dim // 4, dim, 1))
        self.norm = nn.LayerNorm(dim)

    def forward(self, pixel_values, **_):
        x = self.proj(pixel_values)
        return self.norm(x.flatten(2).transpose(1, 2)), tuple(x.shape[2:])


def test_ctranspath_is_a_swin_behind_a_convolutional_stem(tmp_path):
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(image_size=56, embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=7)
    oracle, stem = _lively(SwinModel(config)), _lively(_Stem(16), seed=1)
    names = _as_published(oracle, stem, tmp_path)
    oracle.embeddings = stem
    path = tmp_path / "ctranspath.pth"
    torch.save({"model": names}, path)
    spec = tiny("ctranspath", 32, tile_px=56, img_size=56, embed_dim=16, depths=(2, 2), num_heads=(1, 2))

    @torch.no_grad()
    def expected(pixels):
        return oracle(pixels).last_hidden_state.mean(dim=1)

    assert_gives(spec, path, expected)
