"""MIVPG: learnable queries read a bag of instances and become the visual prompt of a language model.

Reads top to bottom like the paper's section 3: cross-attention with correlated self-attention (CSA, in `attention`),
layer, Q-Former, model. Parameter names are Hugging Face BLIP-2's, so its weights load.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.absorbed import Stream, whole
from wsi_mivpg.mivpg.attention import Bags, CorrelatedSelfAttention, MultiHeadAttention, Packed, ZeroStartLinear
from wsi_mivpg.mivpg.chunks import Bag, as_tensor, chunk_length, first_not_finite, project, split, spool
from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.ppeg import Ppeg, PpegLayout, ZeroStartConv2d, grid_layout, sequence_layout


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


class CrossAttention(nn.Module):
    """MIL pooling, ``Q' = LN(Q + Wo softmax((Q Wq)(X Wk)^T / sqrt(d)) X Wv)`` (paper, Eq. 7), with CSA about it.

    With `csa_position` "pre" this layer reads ``X' = CSA(X, Q)``; with "post" it reads X, and the next cross-attention
    reads ``X' = CSA(X, Q')``. PPEG places the instances before or after CSA.
    """

    def __init__(self, config: MivpgConfig, index: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config, config.hidden_size, config.encoder_hidden_size)
        self.output = ResidualOutput(config, config.hidden_size)
        self.csa: CorrelatedSelfAttention | None = None
        if index in config.layers_with_csa:
            read_again = config.csa_carry == "cumulative" and index != config.cross_attention_layers[-1]
            self.csa = CorrelatedSelfAttention(config, kept=read_again)
        self.csa_follows = config.csa_position == "post"
        self.csa_is_tied = config.csa_tie_down
        self.ppeg = None if config.ppeg == "none" else Ppeg(config.encoder_hidden_size)
        self.ppeg_follows = config.ppeg_order == "after_csa"

    def forward(self, queries: Tensor, bags: Bags, explicit: bool) -> tuple[Tensor, Bags, tuple[Tensor, ...]]:
        """Return the new queries (B, R, hidden_size), the bags to hand on, and the weights per bag if explicit."""
        if not self.ppeg_follows or self.csa is None:
            bags = self.placed(bags)
        if self.csa is not None and not self.csa_follows:
            bags = self.correlated(queries, bags)
        pooled, weights = self.pool(queries, bags, explicit)
        if self.csa is not None and self.csa_follows:
            bags = self.correlated(pooled, bags)
        return pooled, bags, weights

    def correlated(self, queries: Tensor, bags: Bags) -> Bags:
        """CSA for queries (B, R, hidden_size), and PPEG if it follows."""
        assert self.csa is not None
        if self.csa_is_tied and not self.csa_follows:
            queries = self.pool(queries, bags, explicit=False)[0]
        updated = self.csa(bags, queries)
        return self.placed(updated) if self.ppeg_follows else updated

    def placed(self, bags: Bags) -> Bags:
        """PPEG, which needs all instances of a bag at a time."""
        if self.ppeg is None:
            return bags
        if isinstance(bags, Packed):
            return bags._replace(instances=self.ppeg(bags.instances, bags.layout))
        lengths = [len(chunk) for chunk in bags.chunks]
        return Stream(split(self.ppeg(whole(bags), bags.layout), lengths), bags.like, bags.layout)

    def pool(self, queries: Tensor, bags: Bags, explicit: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """BLIP-2's cross-attention: the new queries (B, R, hidden_size), and the weights per bag if explicit."""
        read, weights = self.attention.read(queries, bags, explicit=explicit)
        return self.output(read, queries), weights


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
        self.crossattention = CrossAttention(config, index) if index in config.cross_attention_layers else None
        self.intermediate_query = Intermediate(config)
        self.output_query = ResidualOutput(config, config.intermediate_size)

    def forward(self, queries: Tensor, bags: Bags, explicit: bool) -> tuple[Tensor, Bags, tuple[Tensor, ...]]:
        """Return queries, the bags to hand on, and cross-attention weights per bag (empty without)."""
        queries = self.attention(queries)
        weights: tuple[Tensor, ...] = ()
        if self.crossattention is not None:
            queries, bags, weights = self.crossattention(queries, bags, explicit)
        return self.output_query(self.intermediate_query(queries), queries), bags, weights


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

    def forward(self, queries: Tensor, bags: Bags, explicit: bool) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """Return the queries (B, R, hidden_size) and the weights per cross-attention layer and bag."""
        queries = self.dropout(self.layernorm(queries))
        all_weights = []
        current = bags
        for layer in self.encoder.layer:
            queries, updated, weights = layer(queries, current, explicit)
            current = updated if self.carries_instances else bags
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

    @classmethod
    def from_blip2(
        cls,
        path_or_id: str | Path,
        *,
        config: MivpgConfig | None = None,
        kv: Literal["pretrained", "fresh"] = "pretrained",
        revision: str | None = None,
    ) -> "MivpgModel":
        """Start from the Q-Former of BLIP-2 or InstructBLIP; see `load_blip2`, which also gives the projection.

        Raises:
            ModelError: the checkpoint is not found, damaged, or does not fit.
        """
        from wsi_mivpg.mivpg.pretrained import load_blip2  # which builds this class

        return load_blip2(path_or_id, config=config, kv=kv, revision=revision).model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers skips modules without parameters of their own, so that a zero start must sit in the Linear.
        if isinstance(module, ZeroStartLinear | ZeroStartConv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(cast(Tensor, module.bias))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MivpgModel):
            nn.init.normal_(module.query_tokens, std=self.config.initializer_range)

    def forward(
        self,
        instances: Bag,
        bag_sizes: Sequence[int] | Tensor,
        output_attentions: bool = False,
        coords: Tensor | None = None,
        **_: Any,
    ) -> MivpgOutput:
        """Turn packed bags into visual prompts.

        Bags of at least `absorb_from` instances are read one by one in chunks; all others together.

        Args:
            instances: float, (M_total, D): the bags' instances, one bag after another; D is `input_dim`,
                or `encoder_hidden_size` without an input projection. A NumPy array, such as a bag's
                `features_view()`, is read in chunks and need not fit into memory; without gradients only.
            bag_sizes: B positive integers that sum to M_total.
            output_attentions: also return the cross-attention weights (needs memory heads x R x M_total per layer).
            coords: int, (M_total, 2) or (M_total, 3): each instance's cell, see `grid_layout`; read if `ppeg` is
                "grid" alone.

        Raises:
            ModelError: a bag is empty, an instance is NaN or infinite, sizes and instances do not fit, cells are
                needed and unknown, or a long bag cannot be read as asked.
        """
        sizes = checked_sizes(instances, bag_sizes, input_dim(self.config))
        _refuse_not_finite(instances, sizes)
        prompts: dict[int, Tensor] = {}
        weights: dict[int, tuple[Tensor, ...]] = {}
        for places, bags in self._runs(instances, sizes, coords):
            queries = self.query_tokens.expand(len(places), -1, -1)
            run_prompts, run_weights = self.qformer(queries, bags, output_attentions)
            prompts.update(zip(places, run_prompts, strict=True))
            if output_attentions:
                weights.update(zip(places, zip(*run_weights, strict=True), strict=True))
        order = range(len(sizes))
        layers = tuple(zip(*(weights[place] for place in order), strict=True)) if output_attentions else None
        return MivpgOutput(torch.stack([prompts[place] for place in order]), layers)

    def _runs(self, instances: Bag, sizes: list[int], coords: Tensor | None) -> Iterator[tuple[list[int], Bags]]:
        """Yield what the Q-Former reads at a time, with the bags' places: short ones at once, then each long one."""
        limit = self.config.absorb_from
        long = [place for place, size in enumerate(sizes) if limit is not None and size >= limit]
        short = [place for place in range(len(sizes)) if place not in long]
        bags = split(instances, sizes)
        layout = self._layouts(sizes, coords)
        if long:
            self._check_long(instances, max(sizes))
        if short:
            like = self.query_tokens
            packed = torch.cat([as_tensor(bags[place]) for place in short]) if long else as_tensor(instances)
            packed = packed.to(like.device, like.dtype)
            packed = packed if self.input_projection is None else self.input_projection(packed)
            yield short, Packed(packed, [sizes[place] for place in short], layout(short))
        for place in long:
            yield [place], self._stream(bags[place], layout([place]))

    def _layouts(self, sizes: list[int], coords: Tensor | None) -> Callable[[list[int]], PpegLayout | None]:
        """Return what makes the PPEG layout of some bags, given their places."""
        kind, device = self.config.ppeg, self.query_tokens.device
        if kind == "grid" and (coords is None or len(coords) != sum(sizes)):
            grid_layout(coords, sizes)  # which says what is wrong
        cells = coords.to(device).split(sizes) if kind == "grid" and coords is not None else ()

        def layout(places: list[int]) -> PpegLayout | None:
            own = [sizes[place] for place in places]
            if kind == "grid":
                return grid_layout(torch.cat([cells[place] for place in places]), own)
            return sequence_layout(own, device=device) if kind == "sequence" else None

        return layout

    def _stream(self, bag: Bag, layout: PpegLayout | None) -> Stream:
        """Cut a long bag into chunks of what the Q-Former reads."""
        like, projection = self.query_tokens, self.input_projection
        chunks = split(bag, chunk_length(self.config.chunk_size, like.device))
        changes = self.config.csa_carry == "cumulative" and len(self.config.layers_with_csa) > 0
        if isinstance(bag, Tensor):
            chunks = chunks if projection is None else project(chunks, projection, like)
        elif projection is not None or changes:
            chunks = spool(chunks, projection, like)
        return Stream(chunks, like, layout)

    def _check_long(self, instances: Bag, size: int) -> None:
        if self.training and self.config.attention_probs_dropout_prob > 0:
            raise ModelError(
                f"attention_probs_dropout_prob is {self.config.attention_probs_dropout_prob}, which a bag of {size} "
                "instances cannot be trained with: from absorb_from on, weights are never held; set it to 0, or "
                "absorb_from to None where memory allows"
            )
        if torch.is_grad_enabled() and not isinstance(instances, Tensor):
            raise ModelError("an array is read in chunks without gradients; use torch.no_grad(), or give a tensor")
        if self.config.ppeg != "none" and not isinstance(instances, Tensor):
            raise ModelError("an array is read in chunks, and PPEG needs all instances at a time; give a tensor")


def input_dim(config: MivpgConfig) -> int:
    """Return the width D of the instances that a configuration's adapter reads."""
    return config.input_dim or config.encoder_hidden_size


def checked_sizes(instances: Bag, bag_sizes: Sequence[int] | Tensor, dim: int) -> list[int]:
    """Return the bag sizes as integers.

    Raises:
        ModelError: no bag, an empty bag, instances of another width, or sizes that do not sum to their number.
    """
    sizes = [int(size) for size in bag_sizes]
    if not sizes:
        raise ModelError("no bag was given; give at least one")
    if min(sizes) < 1:
        raise ModelError(f"bag {sizes.index(min(sizes))} holds no instance; leave slides without tissue out")
    if instances.ndim != 2 or instances.shape[1] != dim:
        raise ModelError(f"instances have shape {tuple(instances.shape)}; this model reads (M, {dim})")
    if sum(sizes) != len(instances):
        raise ModelError(f"bag sizes sum to {sum(sizes)}, but {len(instances)} instances were given")
    return sizes


def _refuse_not_finite(instances: Bag, sizes: list[int]) -> None:
    row = first_not_finite(instances)
    if row is not None:
        place = bisect_right(list(accumulate(sizes)), row)
        raise ModelError(
            f"bag {place}: instance {row - sum(sizes[:place])} holds NaN or infinity; extract its slide again"
        )
