"""What reads bags: multi-head attention (paper, Eq. 1) and correlated self-attention (CSA).

Packed bags are read with PyTorch's SDPA, one long bag in chunks with folded weights (`absorbed`), to the same result.
It knows no layers and no model.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_mivpg.mivpg.absorbed import Stream, Update, fold, fold_values, project_mixed, read_stream, update_weights
from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.flow import Flow, LowRank, read_share
from wsi_mivpg.mivpg.ppeg import PpegLayout


class Packed(NamedTuple):
    """B bags one after another, never padded.

    Attributes:
        instances: (M_total, D).
        sizes: instances per bag; they sum to M_total.
        layout: which instances are neighbours, for PPEG.
    """

    instances: Tensor
    sizes: list[int]
    layout: PpegLayout | None = None


Bags = Packed | Stream
"""Packed bags, or one long bag in chunks."""


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
        wide = torch.promote_types(query.dtype, torch.float32)
        scores = (query.to(wide) @ key.to(wide).transpose(-1, -2)) * query.shape[-1] ** -0.5
        weights = scores.softmax(dim=-1)
        mixed = F.dropout(weights, dropout).to(value.dtype) @ value
        return mixed.transpose(-3, -2).flatten(-2), weights

    def forward(self, tokens: Tensor, explicit: bool = False) -> tuple[Tensor, Tensor | None]:
        """Self-attention among (B, T, query_dim) tokens -> (B, T, hidden_size), and the weights if explicit."""
        query, key, value = (self.heads(project(tokens)) for project in (self.query, self.key, self.value))
        return self.attend(query, key, value, explicit)

    def read(
        self, queries: Tensor, bags: Bags, norm: nn.LayerNorm | None = None, explicit: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Let each bag's queries (B, R, query_dim) attend to that bag's instances, after `norm` if given.

        Returns:
            (B, R, hidden_size), and per bag the weights (heads, R, M_b) if explicit, else an empty tuple.
        """
        query = self.query(queries)
        if isinstance(bags, Stream):
            mixed, weights = read_stream(bags, fold(query[0], self.key, self.num_heads), norm, explicit)
            read = project_mixed(mixed, self.value, self.num_heads)[None]
            return read, () if weights is None else (weights.T.unflatten(0, (self.num_heads, -1)),)
        instances = bags.instances if norm is None else norm(bags.instances)
        keys, values = self.key(instances).split(bags.sizes), self.value(instances).split(bags.sizes)
        reads = [
            self.attend(one[None], self.heads(key)[None], self.heads(value)[None], explicit)
            for one, key, value in zip(self.heads(query), keys, values, strict=True)
        ]
        return torch.cat([read for read, _ in reads]), tuple(one[0] for _, one in reads if one is not None)


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

    Permuting X permutes X' and leaves H as it is (Proposition 2). W2o starts at zero, so that X' = X exactly before
    training. With `csa_tie_down` there is no way down: the given queries are H, made by the layer's cross-attention.
    A reconstruction: the paper's formulas could not be read (see docs, "What the paper leaves open").

    Args:
        config: sizes and switches.
        kept: whether later layers read X' too, and not only this layer's cross-attention.
    """

    def __init__(self, config: MivpgConfig, kept: bool) -> None:
        super().__init__()
        self.kept = kept
        self.norm = nn.LayerNorm(config.encoder_hidden_size, eps=config.layer_norm_eps)
        self.down: CsaAttention | None = None
        if not config.csa_tie_down:
            self.down = CsaAttention(config, config.hidden_size, config.encoder_hidden_size)
        self.up = CsaAttention(config, config.encoder_hidden_size, config.hidden_size, ZeroStartLinear)

    def forward(self, bags: Bags, queries: Tensor, flow: Flow | None = None, rests: Tensor | None = None) -> Bags:
        """Return the bags with X' in place of X; a stream changes when next read.

        Args:
            bags: X.
            queries: (B, R, hidden_size).
            flow: of the one bag, if it is followed; learns how instances were mixed.
            rests: (R, M), what the given queries rest on then; ``None`` if nothing was read yet.
        """
        summary = queries
        if self.down is not None:
            read, weights = self.down.read(queries, bags, self.norm, explicit=flow is not None)
            added = self.down.output(read)
            summary = queries + added
            if flow is not None:
                rests = flow.after_reading(weights[0], read_share(added, queries)[0])
        key, value = self.up.key(summary), self.up.value(summary)
        heads = self.up.num_heads
        if isinstance(bags, Stream):
            folded = fold(key[0], self.up.query, heads)
            update = Update(self.norm, folded, fold_values(value[0], self.up.output, heads), heads, self.kept)
            if flow is not None and rests is not None:
                flow.mixings.append(LowRank(*update_weights(bags, update), rests))
            return Stream(bags.chunks, bags.like, bags.layout, update)
        query = self.up.query(self.norm(bags.instances)).split(bags.sizes)
        reads = [
            self.up.attend(self.up.heads(one)[None], one_key[None], one_value[None], explicit=flow is not None)
            for one, one_key, one_value in zip(query, self.up.heads(key), self.up.heads(value), strict=True)
        ]
        added = self.up.output(torch.cat([read[0] for read, _ in reads]))
        up = reads[0][1]
        if flow is not None and rests is not None and up is not None:
            flow.mixings.append(LowRank(up[0].mean(dim=0), read_share(added, bags.instances), rests))
        return bags._replace(instances=bags.instances + added)
