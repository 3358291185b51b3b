"""MIVPG: learnable queries read a bag of instances and become the visual prompt of a language model.

Reads top to bottom like the paper's section 3: attention, correlated self-attention (CSA), cross-attention, layer,
model. Bags are packed one after another, never padded. Parameter names are Hugging Face BLIP-2's, so its weights load.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.configuration import MivpgConfig


@dataclass(frozen=True)
class MivpgOutput:
    """What `MivpgModel` returns.

    Attributes:
        visual_prompt: float, (B, R, hidden_size).
        cross_attentions: per cross-attention layer, per bag, float (heads, R, M_b), each row summing to 1;
            ``None`` unless asked for.
    """

    visual_prompt: Tensor
    cross_attentions: tuple[tuple[Tensor, ...], ...] | None


class MultiHeadAttention(nn.Module):
    """``softmax((X Wq)(Y Wk)^T / sqrt(d)) Y Wv`` per head, without the output matrix (paper, Eq. 1)."""

    def __init__(self, config: MivpgConfig, query_dim: int, context_dim: int) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout_prob = config.attention_probs_dropout_prob
        self.query = nn.Linear(query_dim, config.hidden_size)
        self.key = nn.Linear(context_dim, config.hidden_size)
        self.value = nn.Linear(context_dim, config.hidden_size)

    def heads(self, tokens: Tensor) -> Tensor:
        """(..., T, hidden_size) -> (..., heads, T, head size)."""
        per_head: Tensor = tokens.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)
        return per_head

    def attend(self, query: Tensor, key: Tensor, value: Tensor, explicit: bool) -> tuple[Tensor, Tensor | None]:
        """Attend with (..., heads, T, head size); return (..., T, hidden_size) and, if explicit, the weights."""
        dropout = self.dropout_prob if self.training else 0.0
        if not explicit:
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
            return mixed.transpose(-3, -2).flatten(-2), None
        scores = (query.float() @ key.float().transpose(-1, -2)) * query.shape[-1] ** -0.5
        weights = scores.softmax(dim=-1)
        mixed = F.dropout(weights, dropout).to(value.dtype) @ value
        return mixed.transpose(-3, -2).flatten(-2), weights

    def forward(self, tokens: Tensor) -> Tensor:
        """Self-attention among (B, T, query_dim) tokens -> (B, T, hidden_size)."""
        query, key, value = (self.heads(project(tokens)) for project in (self.query, self.key, self.value))
        return self.attend(query, key, value, explicit=False)[0]


class ResidualOutput(nn.Module):
    """``LN(residual + dropout(X W + b))``: the post-norm end of every BERT block."""

    def __init__(self, config: MivpgConfig, input_dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(input_dim, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Close a block: (B, R, input_dim) and (B, R, hidden_size) -> (B, R, hidden_size)."""
        normalised: Tensor = self.LayerNorm(self.dropout(self.dense(hidden)) + residual)
        return normalised


class SelfAttention(nn.Module):
    """``Q <- LN(Q + Wo SelfAttn(Q))``: the queries exchange what they know."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config, config.hidden_size, config.hidden_size)
        self.output = ResidualOutput(config, config.hidden_size)

    def forward(self, queries: Tensor) -> Tensor:
        """(B, R, hidden_size) -> (B, R, hidden_size)."""
        closed: Tensor = self.output(self.attention(queries), queries)
        return closed


class ZeroStartLinear(nn.Linear):
    """A Linear that returns zero before training."""


class CsaAttention(MultiHeadAttention):
    """One direction of CSA: multi-head attention with its output matrix."""

    def __init__(
        self, config: MivpgConfig, query_dim: int, context_dim: int, output: type[nn.Linear] = nn.Linear
    ) -> None:
        super().__init__(config, query_dim, context_dim)
        self.output = output(config.hidden_size, query_dim)


class CorrelatedSelfAttention(nn.Module):
    """Instances correlate through a rank-R summary that the live queries make, in O(R M) instead of O(M^2).

    ::

        (down)  H  = Q + softmax((Q W1q)(LN(X) W1k)^T / sqrt(d)) LN(X) W1v W1o     (R, hidden_size)
        (up)    X' = X + softmax((LN(X) W2q)(H W2k)^T / sqrt(d)) H W2v W2o         (M, encoder_hidden_size)

    Permuting X permutes X' and leaves H as it is. W2o starts at zero, so that X' = X exactly before training.
    A reconstruction: the paper's formulas could not be read (see docs, "What the paper leaves open").
    """

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.encoder_hidden_size, eps=config.layer_norm_eps)
        self.down = CsaAttention(config, config.hidden_size, config.encoder_hidden_size)
        self.up = CsaAttention(config, config.encoder_hidden_size, config.hidden_size, ZeroStartLinear)

    def forward(self, instances: Tensor, queries: Tensor, bag_sizes: list[int]) -> Tensor:
        """(M_total, encoder_hidden_size) and (B, R, hidden_size) -> (M_total, encoder_hidden_size)."""
        normalised = self.norm(instances)
        summary = queries + self.down.output(
            read_bags(self.down, self.down.query(queries), normalised, bag_sizes, explicit=False)[0]
        )
        up_query = self.up.query(normalised).split(bag_sizes)
        up_key, up_value = self.up.heads(self.up.key(summary)), self.up.heads(self.up.value(summary))
        read = [
            self.up.attend(self.up.heads(query)[None], key[None], value[None], explicit=False)[0][0]
            for query, key, value in zip(up_query, up_key, up_value, strict=True)
        ]
        updated: Tensor = instances + self.up.output(torch.cat(read))
        return updated


def read_bags(
    attention: MultiHeadAttention, query: Tensor, instances: Tensor, bag_sizes: list[int], explicit: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Let each bag's projected queries (B, R, hidden_size) attend to that bag's packed instances (M_total, dim).

    Returns:
        (B, R, hidden_size), and per bag the weights (heads, R, M_b) if explicit, else an empty tuple.
    """
    keys = attention.key(instances).split(bag_sizes)
    values = attention.value(instances).split(bag_sizes)
    mixed, weights = [], []
    for one_query, key, value in zip(attention.heads(query), keys, values, strict=True):
        one_mixed, one_weights = attention.attend(
            one_query[None], attention.heads(key)[None], attention.heads(value)[None], explicit
        )
        mixed.append(one_mixed)
        if one_weights is not None:
            weights.append(one_weights[0])
    return torch.cat(mixed), tuple(weights)


class CrossAttention(nn.Module):
    """``Q <- LN(Q + Wo softmax((Q Wq)(X' Wk)^T / sqrt(d)) X' Wv)`` with ``X' = CSA(X, Q)``: MIL pooling."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config, config.hidden_size, config.encoder_hidden_size)
        self.output = ResidualOutput(config, config.hidden_size)
        self.csa = CorrelatedSelfAttention(config) if config.csa else None

    def forward(
        self, queries: Tensor, instances: Tensor, bag_sizes: list[int], explicit: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return the new queries (B, R, hidden_size), the instances they read, and the weights per bag if explicit."""
        if self.csa is not None:
            instances = self.csa(instances, queries, bag_sizes)
        query = self.attention.query(queries)
        mixed, weights = read_bags(self.attention, query, instances, bag_sizes, explicit)
        return self.output(mixed, queries), instances, weights


class Intermediate(nn.Module):
    """``gelu(X W + b)``: the first half of the feed-forward block."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, R, hidden_size) -> (B, R, intermediate_size)."""
        return F.gelu(self.dense(hidden))


class MivpgLayer(nn.Module):
    """Self-attention, cross-attention in every `cross_attention_frequency`-th layer, feed-forward; all post-norm."""

    def __init__(self, config: MivpgConfig, index: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.crossattention = CrossAttention(config) if index % config.cross_attention_frequency == 0 else None
        self.intermediate_query = Intermediate(config)
        self.output_query = ResidualOutput(config, config.intermediate_size)

    def forward(
        self, queries: Tensor, instances: Tensor, bag_sizes: list[int], explicit: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return queries, the instances to hand on, and cross-attention weights per bag (empty without)."""
        queries = self.attention(queries)
        weights: tuple[Tensor, ...] = ()
        if self.crossattention is not None:
            queries, instances, weights = self.crossattention(queries, instances, bag_sizes, explicit)
        return self.output_query(self.intermediate_query(queries), queries), instances, weights


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(MivpgLayer(config, index) for index in range(config.num_hidden_layers))


class QFormer(nn.Module):
    """BLIP-2's Q-Former with CSA: ``LN -> dropout -> layers``."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.encoder = Encoder(config)
        self.carries_instances = config.csa_carry == "cumulative"

    def forward(
        self, queries: Tensor, instances: Tensor, bag_sizes: list[int], explicit: bool
    ) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """Return the queries (B, R, hidden_size) and the weights per cross-attention layer and bag."""
        queries = self.dropout(self.layernorm(queries))
        all_weights = []
        current = instances
        for layer in self.encoder.layer:
            queries, updated, weights = layer(queries, current, bag_sizes, explicit)
            current = updated if self.carries_instances else instances
            if weights:
                all_weights.append(weights)
        return queries, tuple(all_weights)


class MivpgModel(PreTrainedModel):
    """Bags of instances -> visual prompts of R tokens each. Invariant to the order of a bag's instances."""

    config_class = MivpgConfig
    base_model_prefix = "mivpg"
    main_input_name = "instances"
    config: MivpgConfig

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__(config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.hidden_size))
        self.qformer = QFormer(config)
        self.input_projection: nn.Sequential | None = None
        if config.input_dim is not None:
            self.input_projection = nn.Sequential(
                nn.LayerNorm(config.input_dim), nn.Linear(config.input_dim, config.encoder_hidden_size)
            )
        cast(Any, self).post_init()  # untyped in transformers

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers skips modules without parameters of their own, so that a zero start must sit in the Linear.
        if isinstance(module, ZeroStartLinear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MivpgModel):
            nn.init.normal_(module.query_tokens, std=self.config.initializer_range)

    def forward(
        self, instances: Tensor, bag_sizes: Sequence[int] | Tensor, output_attentions: bool = False, **_: Any
    ) -> MivpgOutput:
        """Turn packed bags into visual prompts.

        Args:
            instances: float, (M_total, D): the bags' instances, one bag after another; D is `input_dim`,
                or `encoder_hidden_size` without an input projection.
            bag_sizes: B positive integers that sum to M_total.
            output_attentions: also return the cross-attention weights (needs memory heads x R x M_total per layer).

        Raises:
            ModelError: a bag is empty, or sizes and instances do not fit.
        """
        sizes = [int(size) for size in bag_sizes]
        self._check(instances, sizes)
        if self.input_projection is not None:
            instances = self.input_projection(instances)
        queries = self.query_tokens.expand(len(sizes), -1, -1)
        prompt, weights = self.qformer(queries, instances, sizes, output_attentions)
        return MivpgOutput(prompt, weights if output_attentions else None)

    def _check(self, instances: Tensor, sizes: list[int]) -> None:
        dim = self.config.input_dim or self.config.encoder_hidden_size
        if not sizes:
            raise ModelError("no bag was given; give at least one")
        if min(sizes) < 1:
            raise ModelError(f"bag {sizes.index(min(sizes))} holds no instance; leave slides without tissue out")
        if instances.ndim != 2 or instances.shape[1] != dim:
            raise ModelError(f"instances have shape {tuple(instances.shape)}; this model reads (M, {dim})")
        if sum(sizes) != len(instances):
            raise ModelError(f"bag sizes sum to {sum(sizes)}, but {len(instances)} instances were given")
