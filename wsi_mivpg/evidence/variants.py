"""What a report would be worth without some of its tiles: the model reads parts of a case, and scores the same report.

Instances are really taken out of the bag, never replaced.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from wsi_mivpg.captioner import CaseBags, SlideCaptioner, pack, report_logprobs, subset
from wsi_mivpg.errors import ModelError

_MOST_INSTANCES = 32768  # read by the adapter at a time, unless one variant alone has more


@torch.no_grad()
def variant_logprobs(
    captioner: SlideCaptioner,
    case: CaseBags,
    kept: Iterable[Tensor],
    token_ids: Sequence[int],
    *,
    prompt: str | None = None,
    batch_size: int = 16,
) -> Tensor:
    """Return the log-probabilities of a report's tokens for parts of a case.

    Args:
        captioner: in evaluation mode.
        case: the whole case.
        kept: per variant, int64 (m,), the places of the instances that are left, in any order; at least one.
        token_ids: the report, T tokens.
        prompt: what was asked; ``None``: the model's own prompt.
        batch_size: variants that the language model scores at a time.

    Returns:
        float32 (variants, T) on the CPU.

    Raises:
        ModelError: a variant has no instance, or a case does not fit the model.
    """
    scored = []
    waiting: list[Tensor] = []
    for visual in _visual_prompts(captioner, case, kept, batch_size):
        waiting += visual
        while len(waiting) >= batch_size:
            scored.append(report_logprobs(captioner, torch.stack(waiting[:batch_size]), token_ids, prompt).cpu())
            waiting = waiting[batch_size:]
    if waiting:
        scored.append(report_logprobs(captioner, torch.stack(waiting), token_ids, prompt).cpu())
    return torch.cat(scored)


def _visual_prompts(
    captioner: SlideCaptioner, case: CaseBags, kept: Iterable[Tensor], batch_size: int
) -> Iterator[list[Tensor]]:
    """Yield the visual prompts (R, width) of a few variants at a time."""
    held: list[CaseBags] = []
    for rows in kept:
        if not len(rows):
            raise ModelError(f"case {case.case_id!r}: all its {len(case)} tiles would be left out; keep at least one")
        part = case if len(rows) == len(case) else subset(case, rows.sort().values)
        if held and (len(held) == batch_size or sum(map(len, held)) + len(part) > _MOST_INSTANCES):
            yield _read(captioner, held)
            held = []
        held.append(part)
    if held:
        yield _read(captioner, held)


def _read(captioner: SlideCaptioner, parts: list[CaseBags]) -> list[Tensor]:
    return list(captioner.visual_prompt(**pack(parts, mapped=True))[0])
