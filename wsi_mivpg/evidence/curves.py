"""Whether a map of tiles shows what a sentence rests on: tiles are taken out in its order, and the model reads again.

Deletion leaves out the map's first tiles; insertion keeps these alone. Both are compared with orders that know nothing
of the sentence.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.errors import ModelError
from wsi_mivpg.evidence.attribution import check_targets
from wsi_mivpg.evidence.groups import even_order
from wsi_mivpg.evidence.measured import Curves
from wsi_mivpg.evidence.variants import variant_logprobs
from wsi_mivpg.mivpg.chunks import CPU_CHUNK, as_tensor, split

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
RANDOM_ORDERS = 8


def faithfulness(
    captioner: SlideCaptioner,
    case: CaseBags,
    token_ids: Sequence[int],
    targets: Sequence[range],
    maps: Tensor,
    *,
    seed: int = 0,
    random_orders: int = RANDOM_ORDERS,
    fractions: Sequence[float] = FRACTIONS,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Curves]:
    """Test one map for each target; the orders that all are compared with are read once.

    The model reads the case ``1 + F (K + 1) + 2 F (1 + S)`` times for F fractions that lie evenly about one half, K
    random orders and S different maps: 86 times for three sentences as it is set, about 0.3 s of one core each with
    the demonstration model. Several methods are tested at one go by giving each target once per method. A random order
    read backwards is random, and an even one even: what is kept by one in insertion is what the other keeps in
    deletion, so that each of these serves both.

    Args:
        captioner: in evaluation mode.
        case: what the report was written about.
        token_ids: the report, T tokens.
        targets: places in `token_ids`, one for each map.
        maps: float (targets, M): the largest weight comes first. Among equal weights chance decides.
        seed: of the random orders and of the chance among equal weights.
        random_orders: K, at least 2.
        fractions: between 0 and 1, exclusive.
        prompt: what was asked; ``None``: the model's own prompt.
        batch_size: variants that the language model scores at a time.

    Raises:
        ModelError: the case has one tile, maps are not finite or do not fit the targets and the case, or a setting is
            out of range.
    """
    check_targets(token_ids, targets)
    _check(captioner, case, targets, maps, random_orders, fractions)
    count = len(case)
    counts = [_share(fraction, count) for fraction in fractions]
    left = [count - taken for taken in counts]
    generator = torch.Generator().manual_seed(seed)
    blind = [torch.randperm(count, generator=generator) for _ in range(random_orders)] + [even_order(case)]
    shuffled = torch.randperm(count, generator=generator)
    distinct, which = maps.cpu().unique(dim=0, return_inverse=True)
    seeing = [_descending(weights, shuffled) for weights in [_feature_norms(case).cpu(), *distinct]]
    both = sorted({*counts, *left})
    kept = [torch.arange(count)]
    kept += [order[:number] for order in blind for number in both]
    kept += [order[taken:] for order in seeing for taken in counts]
    kept += [order[:taken] for order in seeing for taken in counts]
    logprobs = variant_logprobs(captioner, case, kept, token_ids, prompt=prompt, batch_size=batch_size)
    found = []
    for target, own in zip(targets, (1 + which).tolist(), strict=True):
        values = logprobs[:, list(target)].double().sum(dim=1).numpy()
        of_blind, of_seeing = np.split(values[1:], [len(blind) * len(both)])
        of_blind = of_blind.reshape(len(blind), len(both))
        deletions, insertions = of_seeing.reshape(2, len(seeing), len(counts))
        blind_insertion = of_blind[:, [both.index(number) for number in counts]]
        blind_deletion = of_blind[:, [both.index(number) for number in left]]
        found.append(
            Curves(
                np.asarray(fractions, np.float64),
                float(values[0]),
                deletions[own],
                insertions[own],
                blind_deletion[:-1],
                blind_insertion[:-1],
                deletions[0],
                insertions[0],
                blind_deletion[-1],
                blind_insertion[-1],
            )
        )
    return found


def _check(
    captioner: SlideCaptioner,
    case: CaseBags,
    targets: Sequence[range],
    maps: Tensor,
    random_orders: int,
    fractions: Sequence[float],
) -> None:
    if captioner.training:
        raise ModelError("testing maps needs evaluation mode; call .eval() first")
    if len(case) < 2:
        raise ModelError(f"case {case.case_id!r} has one tile; no tile can be left out, so its maps cannot be tested")
    if maps.shape != (len(targets), len(case)):
        raise ModelError(f"maps have shape {tuple(maps.shape)}; give one of {len(case)} tiles for each target")
    if not maps.isfinite().all():
        raise ModelError(f"a map of case {case.case_id!r} holds NaN or infinity")
    if random_orders < 2:
        raise ModelError(f"random_orders is {random_orders}; an interval needs 2 or more")
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise ModelError(f"fractions are {tuple(fractions)}; give shares between 0 and 1")


def _share(fraction: float, count: int) -> int:
    """Return how many tiles a fraction is: so that it and its complement make up all, and neither is none."""
    taken = round(fraction * count) if fraction <= 0.5 else count - round((1 - fraction) * count)
    return min(max(taken, 1), count - 1)


def _descending(weights: Tensor, shuffled: Tensor) -> Tensor:
    return shuffled[weights[shuffled].argsort(descending=True, stable=True)]


def _feature_norms(case: CaseBags) -> Tensor:
    return torch.cat([as_tensor(chunk).float().norm(dim=1) for chunk in split(case.instances, CPU_CHUNK)])
