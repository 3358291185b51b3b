"""The Q-Former of BLIP-2 with correlated self-attention (CSA, in `attention`) at its cross-attentions.

Reads top to bottom like the paper's section 3: self-attention, cross-attention, feed-forward, layer, stack. Parameter
names are Hugging Face BLIP-2's, so its weights load.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from wsi_mivpg.mivpg.absorbed import Stream, whole
from wsi_mivpg.mivpg.attention import Bags, CorrelatedSelfAttention, MultiHeadAttention, Packed
from wsi_mivpg.mivpg.chunks import split
from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.flow import Flow, read_share
from wsi_mivpg.mivpg.ppeg import Ppeg


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

    def share(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Return how much of the sum is not the residual, (B, R)."""
        return read_share(self.dense(hidden), residual)


class SelfAttention(nn.Module):
    """``Q <- LN(Q + Wo SelfAttn(Q))``: the queries exchange what they know."""

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config, config.hidden_size, config.hidden_size)
        self.output = ResidualOutput(config, config.hidden_size)

    def forward(self, queries: Tensor, flow: Flow | None = None) -> Tensor:
        """(B, R, hidden_size) -> (B, R, hidden_size)."""
        read, weights = self.attention(queries, explicit=flow is not None)
        if flow is not None:
            flow.exchanged(weights[0], self.output.share(read, queries)[0])
        closed: Tensor = self.output(read, queries)
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

    def forward(
        self, queries: Tensor, bags: Bags, explicit: bool, flow: Flow | None = None
    ) -> tuple[Tensor, Bags, tuple[Tensor, ...]]:
        """Return the new queries (B, R, hidden_size), the bags to hand on, and the weights per bag if explicit."""
        if not self.ppeg_follows or self.csa is None:
            bags = self.placed(bags)
        if self.csa is not None and not self.csa_follows:
            bags = self.correlated(queries, bags, flow)
        pooled, weights, rests = self.pool(queries, bags, explicit, flow)
        if flow is not None:
            flow.queries = rests
        if self.csa is not None and self.csa_follows:
            bags = self.correlated(pooled, bags, flow)
        return pooled, bags, weights

    def correlated(self, queries: Tensor, bags: Bags, flow: Flow | None = None) -> Bags:
        """CSA for queries (B, R, hidden_size), and PPEG if it follows."""
        assert self.csa is not None
        rests = None if flow is None else flow.queries
        if self.csa_is_tied and not self.csa_follows:
            queries, _, rests = self.pool(queries, bags, explicit=False, flow=flow)
        updated = self.csa(bags, queries, flow, rests)
        return self.placed(updated) if self.ppeg_follows else updated

    def placed(self, bags: Bags) -> Bags:
        """PPEG, which needs all instances of a bag at a time."""
        if self.ppeg is None:
            return bags
        if isinstance(bags, Packed):
            return bags._replace(instances=self.ppeg(bags.instances, bags.layout))
        lengths = [len(chunk) for chunk in bags.chunks]
        return Stream(split(self.ppeg(whole(bags), bags.layout), lengths), bags.like, bags.layout)

    def pool(
        self, queries: Tensor, bags: Bags, explicit: bool, flow: Flow | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """BLIP-2's cross-attention.

        Returns:
            The new queries (B, R, hidden_size), the weights per bag if explicit or followed, and what the new queries
            rest on if followed, (R, M).
        """
        read, weights = self.attention.read(queries, bags, explicit=explicit or flow is not None)
        rests = None if flow is None else flow.after_reading(weights[0], self.output.share(read, queries)[0])
        return self.output(read, queries), weights, rests


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

    def forward(
        self, queries: Tensor, bags: Bags, explicit: bool, flow: Flow | None = None
    ) -> tuple[Tensor, Bags, tuple[Tensor, ...]]:
        """Return queries, the bags to hand on, and cross-attention weights per bag (empty without)."""
        queries = self.attention(queries, flow)
        weights: tuple[Tensor, ...] = ()
        if self.crossattention is not None:
            queries, bags, weights = self.crossattention(queries, bags, explicit, flow)
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

    def forward(
        self, queries: Tensor, bags: Bags, explicit: bool, flow: Flow | None = None
    ) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """Return the queries (B, R, hidden_size) and the weights per cross-attention layer and bag.

        A `flow` follows one bag: it learns what the queries rest on.
        """
        queries = self.dropout(self.layernorm(queries))
        all_weights = []
        current = bags
        for layer in self.encoder.layer:
            queries, updated, weights = layer(queries, current, explicit, flow)
            current = updated if self.carries_instances else bags
            if flow is not None and not self.carries_instances:
                flow.mixings.clear()
            if weights:
                all_weights.append(weights)
        return queries, tuple(all_weights)
