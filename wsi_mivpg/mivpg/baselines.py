"""Other ways from a bag to a visual prompt, for honest comparison: same inputs, same output, same query budget.

Every adapter of `ADAPTERS` is called like `MivpgModel`. None is meant to be better; none reads coordinates.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.attention import MultiHeadAttention, Packed, ZeroStartLinear
from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.flow import Flow, read_share
from wsi_mivpg.mivpg.model import MivpgModel, MivpgOutput, checked_sizes, input_dim

MAX_FULL_ATTENTION = 20_000
"""Most instances per bag that `full_self_attention` takes: 20 000 squared comparisons per head and layer."""
_PAIRS_AT_A_TIME = 256  # rows


class MeanPooling(nn.Module):
    """``z = mean_k h_k``."""

    def forward(self, instances: Tensor, sizes: list[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(M_total, D) -> (B, D), and per bag the weights (M_b,), all equal."""
        bags = instances.split(sizes)
        weights = tuple(bag.new_full((len(bag),), 1 / len(bag)) for bag in bags)
        return torch.stack([bag.mean(dim=0) for bag in bags]), weights


class GatedAttentionPooling(nn.Module):
    """Gated attention of Ilse et al. 2018 (arXiv 1802.04712), the paper's Eq. 5, with biases.

    ::

        a_k = softmax_k(w^T (tanh(V h_k) * sigmoid(U h_k)));  z = sum_k a_k h_k
    """

    def __init__(self, dim: int, attention_dim: int = 128) -> None:
        super().__init__()
        self.tanh = nn.Linear(dim, attention_dim)
        self.gate = nn.Linear(dim, attention_dim)
        self.score = nn.Linear(attention_dim, 1)

    def forward(self, instances: Tensor, sizes: list[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(M_total, D) -> (B, D), and per bag the weights (M_b,) float32, which sum to 1."""
        gated = torch.tanh(self.tanh(instances)) * torch.sigmoid(self.gate(instances))
        scores = self.score(gated).squeeze(-1).float()
        weights = tuple(bag.softmax(dim=0) for bag in scores.split(sizes))
        bags = instances.split(sizes)
        return torch.stack([a.to(h.dtype) @ h for a, h in zip(weights, bags, strict=True)]), weights


class PooledPrompt(nn.Module):
    """``h = GELU(W LN(x) + b)`` per instance, pooled to one vector, which an MLP turns into R tokens."""

    def __init__(self, config: MivpgConfig, pooling: nn.Module) -> None:
        super().__init__()
        self.input_dim = input_dim(config)
        self.num_tokens = config.num_query_tokens
        self.embedding = nn.Sequential(
            nn.LayerNorm(self.input_dim), nn.Linear(self.input_dim, config.hidden_size), nn.GELU()
        )
        self.pooling = pooling
        self.tokens = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Dropout(config.hidden_dropout_prob),
            nn.Linear(config.hidden_size, config.num_query_tokens * config.hidden_size),
            nn.Unflatten(1, (config.num_query_tokens, config.hidden_size)),
            nn.LayerNorm(config.hidden_size),
        )

    def forward(
        self, instances: Tensor, bag_sizes: Sequence[int] | Tensor, output_attentions: bool = False, **_: Any
    ) -> MivpgOutput:
        """Like `MivpgModel.forward`; the one weight of an instance stands for every token (heads = 1)."""
        sizes = checked_sizes(instances, bag_sizes, self.input_dim)
        pooled, weights = self.pooling(self.embedding(instances), sizes)
        shown = tuple(one.expand(1, self.num_tokens, -1) for one in weights)
        return MivpgOutput(self.tokens(pooled), (shown,) if output_attentions else None)


class PerceiverLayer(nn.Module):
    """Flamingo's resampler layer (arXiv 2204.14198): latents read instances and latents, then a feed-forward."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm_instances = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width,
            config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
            bias=False,
            batch_first=True,
        )
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.intermediate_size, bias=False),
            nn.GELU(),
            nn.Linear(config.intermediate_size, width, bias=False),
        )

    def forward(
        self, latents: Tensor, instances: Tensor, sizes: list[int], explicit: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, R, hidden_size) -> the same, and per bag (heads, R, M_b + R) weights if explicit.

        The last R columns are what the latents read of each other.
        """
        query = self.norm_latents(latents)
        mixed, weights = [], []
        for one_query, bag in zip(query, self.norm_instances(instances).split(sizes), strict=True):
            context = torch.cat([bag, one_query])[None]
            read, one_weights = self.attention(
                one_query[None], context, context, need_weights=explicit, average_attn_weights=False
            )
            mixed.append(read)
            if explicit:
                weights.append(one_weights[0])
        latents = latents + torch.cat(mixed)
        return latents + self.feed_forward(latents), tuple(weights)


class PerceiverResampler(nn.Module):
    """R latents read the bag in as many layers as MIVPG has cross-attentions; instances are never updated."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.input_dim = input_dim(config)
        self.input_projection = nn.Sequential(
            nn.LayerNorm(self.input_dim), nn.Linear(self.input_dim, config.hidden_size)
        )
        self.latents = nn.Parameter(config.initializer_range * torch.randn(config.num_query_tokens, config.hidden_size))
        depth = math.ceil(config.num_hidden_layers / config.cross_attention_frequency)
        self.layers = nn.ModuleList(PerceiverLayer(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self, instances: Tensor, bag_sizes: Sequence[int] | Tensor, output_attentions: bool = False, **_: Any
    ) -> MivpgOutput:
        """Like `MivpgModel.forward`; each row of weights sums to 1 over the bag (see `over_instances`)."""
        sizes = checked_sizes(instances, bag_sizes, self.input_dim)
        instances = self.input_projection(instances)
        latents = self.latents.expand(len(sizes), -1, -1)
        layers = []
        for layer in self.layers:
            latents, weights = layer(latents, instances, sizes, output_attentions)
            if output_attentions:
                layers.append(tuple(over_instances(one, size) for one, size in zip(weights, sizes, strict=True)))
        return MivpgOutput(self.norm(latents), tuple(layers) if output_attentions else None)


class Pairs(NamedTuple):
    """Every instance read every other: a `Mixing` whose weights are made again, some rows at a time, when asked for.

    Attributes:
        query, key: (heads, M, head size).
        share: (M,), 0..1.
    """

    query: Tensor
    key: Tensor
    share: Tensor

    def before(self, weights: Tensor) -> tuple[Tensor, int]:
        """(R, M) on the mixed instances -> (R, M) on the ones before."""
        taken = weights * self.share
        on_before = weights - taken
        for rows in torch.arange(len(self.share)).split(_PAIRS_AT_A_TIME):
            scores = self.query[:, rows] @ self.key.transpose(1, 2) * self.query.shape[-1] ** -0.5
            on_before = on_before + taken[:, rows] @ scores.float().softmax(dim=-1).mean(dim=0)
        return on_before, 0


class FullSelfAttention(nn.Module):
    """``X' = X + SelfAttention(LN(X)) Wo`` over every pair of a bag's instances, in place of CSA; Wo starts at zero."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.encoder_hidden_size, eps=config.layer_norm_eps)
        self.attention = MultiHeadAttention(config, config.encoder_hidden_size, config.encoder_hidden_size)
        self.output = ZeroStartLinear(config.hidden_size, config.encoder_hidden_size)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, bags: Packed, queries: Tensor, flow: Flow | None = None, rests: Tensor | None = None) -> Packed:
        """(M_total, encoder_hidden_size) -> the same; the queries are not used.

        Raises:
            ModelError: a bag has more than `MAX_FULL_ATTENTION` instances.
        """
        largest = max(bags.sizes)
        if largest > MAX_FULL_ATTENTION:
            raise ModelError(
                f"bag {bags.sizes.index(largest)} has {largest} instances; full self-attention compares "
                f"every pair and takes at most {MAX_FULL_ATTENTION}; use the adapter 'mivpg' or sample instances"
            )
        normalised = self.norm(bags.instances)
        added = self.output(torch.cat([self.attention(bag[None])[0][0] for bag in normalised.split(bags.sizes)]))
        if flow is not None:
            query, key = (self.attention.heads(part(normalised)) for part in (self.attention.query, self.attention.key))
            flow.mixings.append(Pairs(query, key, read_share(added, bags.instances)))
        return bags._replace(instances=bags.instances + added)


def mean_mlp(config: MivpgConfig) -> PooledPrompt:
    """Mean pooling and an MLP."""
    return PooledPrompt(config, MeanPooling())


def gated_abmil(config: MivpgConfig) -> PooledPrompt:
    """Gated attention pooling (ABMIL) and an MLP."""
    return PooledPrompt(config, GatedAttentionPooling(config.hidden_size))


def plain_qformer(config: MivpgConfig) -> MivpgModel:
    """The Q-Former as in BLIP-2: no correlation between instances, no positions."""
    plain = copy.deepcopy(config)
    plain.csa, plain.ppeg = False, "none"
    return MivpgModel(plain)


def full_self_attention(config: MivpgConfig) -> MivpgModel:
    """The Q-Former with exact self-attention among instances where MIVPG has CSA: what CSA approximates."""
    model = plain_qformer(config)
    model.config.absorb_from = None  # all pairs need all instances at a time
    for index in config.layers_with_csa:
        cast(Any, model.qformer.encoder.layer[index]).crossattention.csa = FullSelfAttention(config)
    return model


ADAPTERS: dict[str, Callable[[MivpgConfig], nn.Module]] = {
    "mivpg": MivpgModel,
    "qformer": plain_qformer,
    "mean_mlp": mean_mlp,
    "gated_abmil": gated_abmil,
    "perceiver": PerceiverResampler,
    "full_self_attention": full_self_attention,
}
"""What a recipe may name. Called with packed ``instances (M_total, D)`` and ``bag_sizes``; returns `MivpgOutput`."""


def over_instances(weights: Tensor, size: int) -> Tensor:
    """Keep the first `size` columns of (heads, R, size + R) weights and let each row sum to 1 again."""
    return F.normalize(weights[..., :size].float(), p=1, dim=-1)
