"""Logits processors that make a row's text depend on that row alone, and NaN an error that names its case.

Hugging Face draws all rows of a batch from one generator; here each row has its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from wsi_mivpg.errors import ModelError

_SAMPLING = (  # in Hugging Face's order, with the values that change nothing
    ("temperature", TemperatureLogitsWarper, 1.0),
    ("top_k", TopKLogitsWarper, 0),
    ("top_p", TopPLogitsWarper, 1.0),
    ("min_p", MinPLogitsWarper, None),
    ("typical_p", TypicalLogitsWarper, 1.0),
)
_TOP_K = 50  # Hugging Face's, where nothing else is asked
_NOT_SAMPLED = ("top_h", "epsilon_cutoff", "eta_cutoff")


class RefuseNaN(LogitsProcessor):
    """Stops where a score is NaN or infinitely large, which would be written as nonsense.

    Args:
        case_ids: of the rows.
        beams: per row.
    """

    def __init__(self, case_ids: Sequence[str], beams: int) -> None:
        self.case_ids = case_ids
        self.beams = beams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows x beams, vocabulary) as they are.

        Raises:
            ModelError: naming the case.
        """
        wrong = (scores.isnan() | scores.isposinf()).any(dim=1)
        if wrong.any():
            case_id = self.case_ids[int(wrong.nonzero()[0, 0]) // self.beams]
            raise ModelError(
                f"case {case_id!r}: the language model computes NaN; hold it in bfloat16 or float32 rather than "
                "float16, or go back to an earlier checkpoint"
            )
        return scores


class Draw(LogitsProcessor):
    """Draws each row's next token with that row's generator and leaves no other; the greedy choice then is the draw."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(rows, vocabulary) -> the same, -inf but for one token a row."""
        cumulative = scores.cpu().double().softmax(dim=-1).cumsum(dim=-1)
        at = torch.tensor([[generator.random()] for generator in self.generators], dtype=torch.double)
        chosen = torch.searchsorted(cumulative, at * cumulative[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen.to(scores.device), 0.0)


def sampling_processors(settings: dict[str, Any]) -> list[LogitsProcessor]:
    """Take the settings of sampling out of `settings` and return what they mean.

    Raises:
        ModelError: a setting of sampling that is not drawn row by row, or a value out of its range.
    """
    if refused := [name for name in _NOT_SAMPLED if settings.get(name) is not None]:
        raise ModelError(f"generation: {refused[0]} is not supported; use top_k, top_p, min_p or typical_p")
    settings.setdefault("top_k", _TOP_K)
    processors: list[LogitsProcessor] = []
    for name, warper, neutral in _SAMPLING:
        value = settings.pop(name, None)
        if value is not None and value != neutral:
            try:
                processors.append(warper(value))
            except ValueError as error:
                raise ModelError(f"generation: {name}: {error}") from error
    return processors


def unpenalised_prompt(settings: dict[str, Any]) -> list[LogitsProcessor]:
    """Return the repetition penalty on what is written.

    Given one, Hugging Face leaves its own out, which passes over as many written tokens as a row has padding: it takes
    them for the prompt's.

    Raises:
        ModelError: the penalty is not positive.
    """
    penalty = settings.get("repetition_penalty")
    if penalty is None or penalty == 1.0:
        return []
    try:
        return [RepetitionPenaltyLogitsProcessor(float(penalty))]
    except ValueError as error:
        raise ModelError(f"generation: repetition_penalty: {error}") from error
