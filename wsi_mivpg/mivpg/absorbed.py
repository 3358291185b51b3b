"""Exact attention to a bag of any size: keys and values are folded into the side of the R queries and never built.

``(x Wk)·q = x·(q Wk^T)``: per head, R folded rows as wide as an instance take the place of M keys, and instances are
mixed before they are projected to values. They pass in chunks, an online softmax joins these, backward recomputes them.
Functions over tensors; which weights they belong to is the business of `attention`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_mivpg.mivpg.chunks import Bag, as_tensor, recomputed, store
from wsi_mivpg.mivpg.flow import read_share
from wsi_mivpg.mivpg.ppeg import PpegLayout

_JOIN_EVERY = 16  # partial results held at a time; each takes heads R D numbers, as much as a few hundred instances


class Folded(NamedTuple):
    """One side of an attention with the other side's weights in it: the scores of x (c, D) are ``x rows^T + bias``.

    Attributes:
        rows: (heads R, D).
        bias: (heads R,).
    """

    rows: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Update:
    """``X' = X + softmax(LN(X) queries^T) values``, the softmax over each head's R rows: CSA's way up, folded.

    Attributes:
        norm: the LayerNorm over D.
        queries: the summary's keys with the instances' query weights in them.
        values: (heads R, D), the summary's values with the output weights in them.
        heads: number of heads.
        kept: whether later layers read X' too.
    """

    norm: nn.LayerNorm
    queries: Folded
    values: Tensor
    heads: int
    kept: bool


@dataclass
class Stream:
    """One bag in chunks.

    Attributes:
        chunks: the instances, in order; replaced by the updated ones where an update is kept.
        like: a parameter of the model: chunks take its device and dtype when they are read.
        layout: which instances are neighbours, for PPEG.
        update: what must still be done to every chunk; the next reading does it on its way.
    """

    chunks: list[Bag]
    like: Tensor
    layout: PpegLayout | None = None
    update: Update | None = None


def fold(tokens: Tensor, projection: nn.Linear, heads: int) -> Folded:
    """Fold a projection of the instances into R projected tokens, so that scores need no projected instances.

    Args:
        tokens: (R, hidden), already projected: queries with the query weights, or keys with the key weights.
        projection: Linear D -> hidden of the other side.
        heads: number of heads; scores are divided by the root of the head size.
    """
    per_head = _per_head(tokens, heads)
    scaled = per_head * per_head.shape[-1] ** -0.5
    rows = scaled @ projection.weight.unflatten(0, (heads, -1))
    # The same for all instances of a query, so that its softmax ignores it; with it, scores and gradients are SDPA's.
    bias = scaled @ projection.bias.unflatten(0, (heads, -1))[..., None]
    return Folded(rows.flatten(0, 1), bias.flatten())


def fold_values(values: Tensor, output: nn.Linear, heads: int) -> Tensor:
    """Fold the output matrix (hidden -> D) into R values (R, hidden) -> (heads R, D).

    Weights of a head sum to 1, so that every row carries its share of the bias.
    """
    rows: Tensor = _per_head(values, heads) @ output.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
    folded: Tensor = rows.flatten(0, 1) + output.bias / heads
    return folded


def project_mixed(mixed: Tensor, value: nn.Linear, heads: int) -> Tensor:
    """Mixed instances (heads R, D) -> mixed values (R, hidden); the bias enters once, since weights sum to 1."""
    per_head = mixed.to(value.weight.dtype).unflatten(0, (heads, -1))
    values = per_head @ value.weight.unflatten(0, (heads, -1)).transpose(1, 2)
    projected: Tensor = values.transpose(0, 1).flatten(1) + value.bias
    return projected


def read_stream(
    stream: Stream, query: Folded, norm: nn.LayerNorm | None = None, explicit: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Let folded queries attend to a bag in one pass, doing the bag's pending update on the way.

    Args:
        stream: the bag. An update that is kept is done when this returns; else it is for this reading only.
        query: rows (heads R, D), with bias.
        norm: applied to the (updated) instances before they are read.
        explicit: also return the attention weights, recomputed from scores and the softmax's statistics.

    Returns:
        Mixed instances (heads R, D) in at least float32, and the weights (M, heads R) if explicit.
    """
    update, like = stream.update, stream.like  # backward calls `visit` again, when the stream has gone on
    kept = update is not None and update.kept

    def visit(chunk: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        instances = chunk.to(like.device, like.dtype)
        if update is not None:
            instances = update_chunk(instances, update)
        return instances, *read_chunk(instances if norm is None else _normalised(instances, norm), query)

    parts: list[tuple[Tensor, Tensor]] = []
    scores: list[Tensor] = []
    for place, chunk in enumerate(stream.chunks):
        instances, total, mixed, chunk_scores = recomputed(visit, as_tensor(chunk))
        if kept:
            store(stream.chunks, place, instances)
        if explicit:
            scores.append(chunk_scores)
        parts.append((total, mixed))
        if len(parts) == _JOIN_EVERY:
            parts = [join(parts)]
    if kept:
        stream.update = None
    total, mixed = join(parts)
    return mixed, torch.cat([(one - total).exp() for one in scores]) if explicit else None


def whole(stream: Stream) -> Tensor:
    """Return all instances (M, D) in one piece, updated."""
    update, like = stream.update, stream.like

    def visit(chunk: Tensor) -> Tensor:
        instances = chunk.to(like.device, like.dtype)
        return instances if update is None else update_chunk(instances, update)

    return torch.cat([recomputed(visit, as_tensor(chunk)) for chunk in stream.chunks])


def read_chunk(instances: Tensor, query: Folded) -> tuple[Tensor, Tensor, Tensor]:
    """Attend to one chunk (c, D).

    Returns:
        The logarithm of the sum of the exponentials of its scores (heads R,), its mixed instances (heads R, D) and
        its scores (c, heads R), in float32, or float64 for float64.
    """
    scores = _widened(F.linear(instances, *query))
    total = scores.logsumexp(0)
    weights = (scores - total).exp()
    return total, _widened(weights.to(instances.dtype).T @ instances), scores


def join(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join (total, mixed) of several chunks into those of all their instances."""
    totals = torch.stack([total for total, _ in parts])
    total = totals.logsumexp(0)
    shares = (totals - total).exp()
    mixed = shares[0, :, None] * parts[0][1]
    for share, (_, more) in zip(shares[1:], parts[1:], strict=True):
        mixed = torch.addcmul(mixed, share[:, None], more)
    return total, mixed


def update_chunk(instances: Tensor, update: Update) -> Tensor:
    """Return the updated instances (c, D)."""
    return instances + _read_summary(instances, update)[0]


def update_weights(stream: Stream, update: Update) -> tuple[Tensor, Tensor]:
    """Return how much of each summary row the instances will read, (M, R), the mean over heads, and its share (M,)."""
    means, shares = [], []
    for chunk in stream.chunks:
        instances = as_tensor(chunk).to(stream.like.device, stream.like.dtype)
        read, weights = _read_summary(instances, update)
        means.append(weights.unflatten(-1, (update.heads, -1)).mean(dim=-2))
        shares.append(read_share(read, instances))
    return torch.cat(means), torch.cat(shares)


def _read_summary(instances: Tensor, update: Update) -> tuple[Tensor, Tensor]:
    """Return what is added to (c, D) instances and the weights (c, heads R), the width between the two products."""
    normalised = _normalised(instances, update.norm)
    scores = _widened(F.linear(normalised, *update.queries))
    weights = scores.unflatten(-1, (update.heads, -1)).softmax(-1).flatten(-2)
    return weights.to(normalised.dtype) @ update.values.to(normalised.dtype), weights


def _normalised(instances: Tensor, norm: nn.LayerNorm) -> Tensor:
    return cast(Tensor, norm(instances))


def _per_head(tokens: Tensor, heads: int) -> Tensor:
    """(R, hidden) -> (heads, R, head size)."""
    per_head: Tensor = tokens.unflatten(-1, (heads, -1)).transpose(0, 1)
    return per_head


def _widened(tensor: Tensor) -> Tensor:
    """At least float32: sums over many instances lose what is small in fewer bits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
