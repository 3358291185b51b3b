"""Sanity checks of maps (Adebayo et al. 2018, arXiv 1810.03292): a map must change when what it explains changes.

A method that draws the same map for a model whose weights were shuffled shows the tiles, not the model; one that draws
the same map for another report shows the slide, not the sentence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import Tensor

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.evidence.attribution import attribute

_READ_FIRST = ("input_projection", "query_tokens", "latents", "embedding", "pooling")


@dataclass(frozen=True)
class Randomised:
    """Maps after something was made random, compared with those before.

    Attributes:
        what: what was made random; for weights, this part and all that were named before it.
        correlations: Spearman's rank correlation with the map before, for each target, -1..1; NaN where a map is
            constant. Near 1: the map does not depend on what was made random, and should not be believed. Near 0: it
            does.
    """

    what: str
    correlations: tuple[float, ...]


def model_randomisation(
    captioner: SlideCaptioner,
    case: CaseBags,
    token_ids: Sequence[int],
    targets: Sequence[range],
    method: str,
    *,
    prompt: str | None = None,
    seed: int = 0,
) -> list[Randomised]:
    """Shuffle the weights of the adapter part by part, from the projection down to the tiles, and draw the maps again.

    Each tensor's numbers are shuffled among themselves, so that their sizes stay what they were; parts stay shuffled as
    the next one follows ("cascading"). The language model is left as it is. The captioner's weights are put back.

    Args:
        captioner: in evaluation mode.
        case: what the report was written about.
        token_ids: the report.
        targets: places in `token_ids`.
        method: see `attribute`.
        prompt: what was asked; ``None``: the model's own prompt.
        seed: of the shuffling.

    Raises:
        ModelError: see `attribute`.
    """
    before = attribute(captioner, case, token_ids, targets, method, prompt=prompt)
    generator = torch.Generator().manual_seed(seed)
    kept = [(tensor, tensor.detach().clone()) for _, tensors in _parts(captioner) for tensor in tensors]
    found = []
    try:
        for name, tensors in _parts(captioner):
            for tensor in tensors:
                shuffled = tensor.detach().flatten()[torch.randperm(tensor.numel(), generator=generator)]
                tensor.data.copy_(shuffled.view_as(tensor))
            after = attribute(captioner, case, token_ids, targets, method, prompt=prompt)
            found.append(Randomised(name, rank_correlations(before, after)))
    finally:
        for tensor, own in kept:
            tensor.data.copy_(own)
    return found


def label_randomisation(
    captioner: SlideCaptioner,
    case: CaseBags,
    token_ids: Sequence[int],
    targets: Sequence[range],
    others: Sequence[tuple[str, Sequence[int]]],
    method: str,
    *,
    prompt: str | None = None,
) -> list[Randomised]:
    """Draw the map of other cases' reports on this case's tiles, and compare the sentences' maps with it.

    Adebayo et al. train a model anew on shuffled labels, which takes as long as the training did. This asks the same of
    the map at the price of one map per report: whether it depends on what is said. It does not ask whether the model
    does; a model that never looked at its labels is found by `evaluate`, with another case's slide.

    Args:
        captioner: in evaluation mode.
        case: whose tiles are weighed.
        token_ids: its own report.
        targets: places in `token_ids`.
        others: case id and token ids of other reports; each is one target as a whole.
        method: see `attribute`.
        prompt: what was asked; ``None``: the model's own prompt.

    Raises:
        ModelError: see `attribute`.
    """
    own = attribute(captioner, case, token_ids, targets, method, prompt=prompt)
    found = []
    for name, ids in others:
        other = attribute(captioner, case, ids, [range(len(ids))], method, prompt=prompt)
        found.append(Randomised(name, rank_correlations(own, other.expand_as(own))))
    return found


def rank_correlations(one: Tensor, other: Tensor) -> tuple[float, ...]:
    """Return Spearman's correlation of each row of two sets of maps (S, M); NaN where a map is constant."""
    pairs = zip(one.numpy(), other.numpy(), strict=True)
    return tuple(
        float(spearmanr(a, b).statistic) if a.min() < a.max() and b.min() < b.max() else float("nan") for a, b in pairs
    )


def _parts(captioner: SlideCaptioner) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the adapter's parts and their weights, from the language model's side to the tiles' side."""
    yield "language_projection", list(captioner.language_projection.parameters())
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in captioner.mivpg.named_parameters():
        words = name.split(".")
        layer = next((place for place, word in enumerate(words) if word.isdigit()), 0)
        parts.setdefault(".".join(words[: layer + 1]), []).append(parameter)
    last_first = sorted(reversed(parts), key=lambda name: any(word in _READ_FIRST for word in name.split(".")))
    yield from ((name, parts[name]) for name in last_first)
