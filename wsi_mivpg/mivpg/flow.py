"""How much each query rests on each instance, followed through the Q-Former's layers: attention rollout in rank R.

Abnar & Zuidema 2020 (arXiv 2005.00928) multiply attention layer by layer, each half what was there and half what was
read. Here the halves are measured, and instances that CSA mixes are followed without ever comparing them in pairs.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Mixing(Protocol):
    """What a layer did to the instances of a bag."""

    def before(self, weights: Tensor) -> tuple[Tensor, Tensor | int]:
        """Split weights (R, M) on the mixed instances: on the instances before, and already on the bag's own."""


class LowRank(NamedTuple):
    """CSA: ``X'_i = (1 - share_i) X_i + share_i sum_r up_ir H_r``, and each H_r rests on the bag as `summary` says.

    Attributes:
        up: (M, R), the mean over heads; rows sum to 1.
        share: (M,), 0..1.
        summary: (R, M); rows sum to at most 1.
    """

    up: Tensor
    share: Tensor
    summary: Tensor

    def before(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Two thin products, (R, M)(M, R) and (R, R)(R, M), in place of an M x M matrix."""
        taken = weights * self.share
        return weights - taken, (taken @ self.up) @ self.summary


@dataclass
class Flow:
    """The rollout of one bag, filled while the Q-Former reads it; positions (PPEG) count as the instance's own.

    With `w` the mean of a layer's attention weights over its heads and `s` the share of what was read in the sum
    (`read_share`), queries go on as ``(1 - s) Q + s w Q`` among themselves and as ``(1 - s) Q + s w X`` from instances.

    Attributes:
        queries: float (R, M): what each query has of each instance. Rows sum to at most 1; the rest is the query's own
            start, which is the same for all bags. ``None`` before anything was read.
        mixings: what was done to the instances since they were the bag's own.
    """

    queries: Tensor | None = None
    mixings: list[Mixing] = field(default_factory=list)

    def exchanged(self, weights: Tensor, share: Tensor) -> None:
        """The queries read each other: weights (heads, R, R), share (R,)."""
        if self.queries is not None:
            self.queries = self.queries + share[:, None] * (weights.mean(dim=0) @ self.queries - self.queries)

    def after_reading(self, weights: Tensor, share: Tensor) -> Tensor:
        """Return what queries rest on (R, M) once they have read instances: weights (heads, R, M), share (R,)."""
        on_mixed = share[:, None] * weights.mean(dim=0)
        done: Tensor | int = 0
        for mixing in reversed(self.mixings):
            on_mixed, early = mixing.before(on_mixed)
            done = done + early
        read = on_mixed + done
        return read if self.queries is None else read + (1 - share[:, None]) * self.queries


def read_share(read: Tensor, kept: Tensor) -> Tensor:
    """Return the share of what was read in ``kept + read``, by their lengths: (..., D) twice -> (...), 0..1.

    Abnar & Zuidema take one half; a layer that has not learned to read, as CSA before training, has none. Measuring it
    follows Kobayashi et al. 2021 (EMNLP, norm-based analysis with residual connections).
    """
    lengths = torch.linalg.vector_norm(torch.stack([read.float(), kept.float()]), dim=-1)
    share: Tensor = lengths[0] / lengths.sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    return share
