"""Published vision towers that neither timm nor transformers has: a timm trunk plus the few layers that differ.

The attributes carry the published names, so that the published tensors fit without renaming.
"""

from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional


class ConvStem(nn.Module):
    """CTransPath's patch embedding: two strided convolutions and a projection in place of one 4x4 convolution."""

    def __init__(self, *, img_size: int, patch_size: int, in_chans: int, embed_dim: int, norm_layer: Any, **_: Any):
        super().__init__()
        side = img_size // patch_size
        self.grid_size, self.num_patches = (side, side), side * side
        layers: list[nn.Module] = []
        n_in, n_out = in_chans, embed_dim // 8
        for _stride in range(2):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
            n_in, n_out = n_out, 2 * n_out
        self.proj = nn.Sequential(*layers, nn.Conv2d(n_in, embed_dim, 1))
        self.norm = norm_layer(embed_dim)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn (N, 3, H, W) into (N, H / 4, W / 4, embed_dim)."""
        embedded: torch.Tensor = self.norm(self.proj(pixels).permute(0, 2, 3, 1))
        return embedded


class PlainPooler(nn.Module):
    """CONCH v1.5's attentional pooler: learned queries over the tokens, without biases."""

    def __init__(self, dim: int, context_dim: int, n_heads: int, n_queries: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Parameter(torch.randn(n_queries, dim))
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(context_dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Pool (N, L, context_dim) to (N, n_queries, dim)."""
        queries = self.to_q(self.ln_q(self.query)).expand(len(tokens), -1, -1)
        keys, values = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        heads = [part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
        pooled = functional.scaled_dot_product_attention(*heads)
        projected: torch.Tensor = self.to_out(pooled.transpose(1, 2).flatten(2))
        return projected


class CocaPooler(nn.Module):
    """CONCH's attentional pooler: learned queries through torch's multi-head attention."""

    def __init__(self, dim: int, context_dim: int, n_heads: int, n_queries: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(n_queries, dim))
        self.attn = nn.MultiheadAttention(dim, n_heads, kdim=context_dim, vdim=context_dim, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(context_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Pool (N, L, context_dim) to (N, n_queries, dim)."""
        context = self.ln_k(tokens)
        queries = self.ln_q(self.query).expand(len(tokens), -1, -1)
        pooled: torch.Tensor = self.attn(queries, context, context, need_weights=False)[0]
        return pooled


class Conch(nn.Module):
    """The vision tower of CONCH up to `ln_contrast`: the features that its authors use without text."""

    def __init__(self, *, pooler: str, dim: int, n_heads: int, trunk: dict[str, Any]) -> None:
        super().__init__()
        self.trunk = timm.create_model(num_classes=0, **trunk)
        width: Any = self.trunk.num_features
        poolers: dict[str, type[PlainPooler] | type[CocaPooler]] = {"coca": CocaPooler, "plain": PlainPooler}
        self.attn_pool_contrast = poolers[pooler](dim, width, n_heads, 1)
        self.ln_contrast = nn.LayerNorm(dim)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn (N, 3, H, W) into (N, dim)."""
        trunk: Any = self.trunk
        pooled = self.attn_pool_contrast(trunk.forward_features(pixels))[:, 0]
        features: torch.Tensor = self.ln_contrast(pooled)
        return features


class Keep(nn.Module):
    """The vision tower of KEEP with its projection; features have length 1, as published."""

    def __init__(self, *, dim: int, trunk: dict[str, Any]) -> None:
        super().__init__()
        self.visual = timm.create_model(num_classes=0, **trunk)
        width: Any = self.visual.num_features
        self.visual_head = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn (N, 3, H, W) into (N, dim)."""
        return functional.normalize(self.visual_head(self.visual(pixels)), dim=-1)
