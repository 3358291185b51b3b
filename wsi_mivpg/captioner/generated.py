"""A written report with all that is known of its tokens, and a first look at what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_SHORTEST_REPETITION, _LONGEST_PERIOD, _TIMES = 12, 64, 3


@dataclass(frozen=True, eq=False)
class Generated:
    """One report.

    Attributes:
        case_id: the case.
        prompt: what was asked.
        sample: its number among the samples of this case and prompt, from 0.
        text: the report.
        token_ids: what was written, the end token included if it was.
        token_logprobs: float32 (T,): natural log-probability of each of `token_ids` under the model alone, before
            temperature, penalties and cuts.
        mean_logprob: their mean.
        attention: float32 (M,), sums to 1: how much each instance was read, the mean over heads, queries and
            cross-attention layers. A hint at where the model looked, not a proof of why it wrote what it wrote.
        hit_length_limit: the text was cut at `max_new_tokens`.
        flags: what is wrong with it at first sight: "empty"; "runaway", which did not end by itself; "repetition",
            the same words three times and more on end.
    """

    case_id: str
    prompt: str
    sample: int
    text: str
    token_ids: tuple[int, ...]
    token_logprobs: Tensor
    mean_logprob: float
    attention: Tensor
    hit_length_limit: bool
    flags: tuple[str, ...]


def repeats(ids: Sequence[int]) -> bool:
    """Return whether a sequence of tokens stands at least three times on end, over at least 12 tokens."""
    tokens = torch.tensor(ids)
    for period in range(1, min(_LONGEST_PERIOD, len(ids) // _TIMES) + 1):
        run = longest = 0
        for same in (tokens[period:] == tokens[:-period]).tolist():
            run = run + 1 if same else 0
            longest = max(longest, run)
        if longest and longest + period >= max(_TIMES * period, _SHORTEST_REPETITION):
            return True
    return False
