"""Vision transformers written out from the papers, as oracles for the loaders.

`random_vit` draws the tensors of a tiny network under neutral names (those of timm and DINO); the tests write them
under each publisher's names, and `vit_tokens` computes what the loaded encoder must give. Nothing here imports timm or
transformers.
"""

import math

import torch
from torch.nn import functional


def random_vit(
    *, dim=32, depth=2, grid=2, patch=14, n_registers=0, positions="cls+patches", mlp="gelu", hidden=48, channels=3,
    layer_scale=True, qkv_bias=True, patch_bias=True, sub_norm=False, pre_norm=False, seed=0,
):  # fmt: skip
    """Tensors by neutral name; `positions` is "cls+patches", "all" (registers too) or None (rotary)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return 0.3 * torch.randn(*shape, generator=generator)

    def norm(name, size=dim):
        return {f"{name}.weight": 1 + draw(size), f"{name}.bias": draw(size)}

    def linear(name, n_out, n_in, bias=True):
        return {f"{name}.weight": draw(n_out, n_in)} | ({f"{name}.bias": draw(n_out)} if bias else {})

    state = {"cls_token": draw(1, 1, dim), "patch_embed.proj.weight": draw(dim, channels, patch, patch)}
    if patch_bias:
        state["patch_embed.proj.bias"] = draw(dim)
    if n_registers:
        state["reg_token"] = draw(1, n_registers, dim)
    if positions:
        state["pos_embed"] = draw(1, grid**2 + 1 + (n_registers if positions == "all" else 0), dim)
    if pre_norm:
        state |= norm("norm_pre")
    for block in (f"blocks.{i}" for i in range(depth)):
        state |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        state |= linear(f"{block}.attn.qkv", 3 * dim, dim, qkv_bias) | linear(f"{block}.attn.proj", dim, dim)
        state |= linear(f"{block}.mlp.fc1", 2 * hidden if mlp == "swiglu" else hidden, dim)
        state |= linear(f"{block}.mlp.fc2", dim, hidden)
        if layer_scale:
            state |= {f"{block}.ls1.gamma": draw(dim), f"{block}.ls2.gamma": draw(dim)}
        if sub_norm:
            state |= norm(f"{block}.attn.norm") | norm(f"{block}.mlp.norm", hidden)
    return state | norm("norm")


def vit_tokens(state, pixels, *, n_heads=2, eps=1e-6, mlp="gelu", rope_base=None):
    """Tokens (N, L, dim) after the last normalisation: the class token, the registers, the patches."""

    def norm(name, x):
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(name, x):
        return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def maybe_norm(name, x):
        return norm(name, x) if f"{name}.weight" in state else x

    weight = state["patch_embed.proj.weight"]
    patches = functional.conv2d(pixels, weight, state.get("patch_embed.proj.bias"), stride=weight.shape[-1])
    rows, columns = patches.shape[2:]
    patches = patches.flatten(2).transpose(1, 2)
    n, cls = len(pixels), state["cls_token"]
    registers = state.get("reg_token", cls[:, :0])
    positions = state.get("pos_embed")
    if positions is not None and positions.shape[1] == 1 + patches.shape[1]:
        cls, patches = cls + positions[:, :1], patches + positions[:, 1:]
        positions = None
    x = torch.cat([cls.expand(n, -1, -1), registers.expand(n, -1, -1), patches], dim=1)
    x = maybe_norm("norm_pre", x if positions is None else x + positions)
    turn = None if rope_base is None else _rotary(rows, columns, x.shape[-1] // n_heads, rope_base)
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    for block in (f"blocks.{i}" for i in range(depth)):
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (n_heads, -1)).transpose(1, 2) for part in (q, k, v))
        if turn is not None:
            q, k = _turned(q, turn), _turned(k, turn)
        attention = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        mixed = maybe_norm(f"{block}.attn.norm", (attention @ v).transpose(1, 2).flatten(2))
        x = x + linear(f"{block}.attn.proj", mixed) * state.get(f"{block}.ls1.gamma", 1)
        hidden = _activated(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)), mlp)
        x = x + linear(f"{block}.mlp.fc2", maybe_norm(f"{block}.mlp.norm", hidden)) * state.get(f"{block}.ls2.gamma", 1)
    return norm("norm", x)


def pixels_of(tiles, spec):
    """Normalised float32 (N, 3, H, W) of uint8 (N, H, W, 3)."""
    scaled = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return (scaled - mean) / std


def attention_pool(query, keys, values, n_heads):
    """softmax(QKᵀ/√d)V of one query (1, dim) over (N, L, dim) keys and values."""
    q, k, v = (part.unflatten(-1, (n_heads, -1)).transpose(-3, -2) for part in (query, keys, values))
    return ((q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v).transpose(-3, -2).flatten(-2)


def _activated(x, mlp):
    if mlp == "swiglu":
        gate, value = x.chunk(2, dim=-1)
        return gate * gate.sigmoid() * value
    return x * (1.702 * x).sigmoid() if mlp == "quick_gelu" else functional.gelu(x)


def _rotary(rows, columns, head_dim, base):
    """Angles (rows * columns, head_dim) of DINOv3: patch centres in -1..1, half of the pairs for each axis."""
    periods = base ** (2 * torch.arange(head_dim // 4) / (head_dim // 2))
    y, x = (2 * (torch.arange(n) + 0.5) / n - 1 for n in (rows, columns))
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(-1, 2)
    angles = (2 * math.pi * centres[:, :, None] / periods).flatten(1)
    return torch.cat([angles, angles], dim=-1)


def _turned(x, angles):
    prefix, patches = x[:, :, : -len(angles)], x[:, :, -len(angles) :]
    first, second = patches.chunk(2, dim=-1)
    return torch.cat([prefix, patches * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()], dim=2)
