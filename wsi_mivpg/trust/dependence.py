"""How much likelier a report is after its own slides than after others': what it owes to the image.

One batch of the language model scores the report after every visual prompt; nothing is written.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_mivpg.captioner import SlideCaptioner, pack, report_logprobs
from wsi_mivpg.captioner.inputs import CaseBags, in_memory

_ZEROED_INSTANCES = 64


@dataclass(frozen=True, eq=False)
class Scored:
    """A report's T tokens after several visual prompts: natural log-probabilities, each given the tokens before it.

    Attributes:
        own: float64 (T,), after the case's own prompt.
        zeroed: float64 (T,), after that of a slide whose features are all zero.
        others: float64 (K, T), after other slides' prompts; K may be 0.
    """

    own: NDArray[np.float64]
    zeroed: NDArray[np.float64]
    others: NDArray[np.float64]

    def dependence(self, tokens: range | None = None) -> float:
        """Return by how many nats these tokens (all, if not given) are likelier after their own slide.

        They are held against the mean likelihood after the other slides, or against that after zeros where it is
        higher: 0 is what a text would get that any slide could have.
        """
        places = list(range(len(self.own)) if tokens is None else tokens)
        against = float(self.zeroed[places].sum())
        if len(self.others):
            likelihoods = self.others[:, places].sum(axis=1)
            against = max(against, float(np.logaddexp.reduce(likelihoods) - np.log(len(likelihoods))))
        return float(self.own[places].sum()) - against


@torch.no_grad()
def visual_prompt(captioner: SlideCaptioner, case: CaseBags) -> Tensor:
    """Return what the language model reads of a case, float (R, width)."""
    return captioner.visual_prompt(**pack([case], mapped=True))[0][0]


def zeroed_prompt(captioner: SlideCaptioner, feature_dim: int) -> Tensor:
    """Return the visual prompt of a slide whose features are all zero, float (R, width)."""
    cells = torch.stack([torch.arange(_ZEROED_INSTANCES) % 8, torch.arange(_ZEROED_INSTANCES) // 8], dim=1)
    cells = torch.cat([cells, torch.zeros(_ZEROED_INSTANCES, 1, dtype=torch.long)], dim=1)
    return visual_prompt(captioner, in_memory("zeros", torch.zeros(_ZEROED_INSTANCES, feature_dim), cells=cells))


@torch.no_grad()
def score(
    captioner: SlideCaptioner, visual: Tensor, zeroed: Tensor, others: Tensor, token_ids: Any, prompt: str | None = None
) -> Scored:
    """Score a report's tokens after its own visual prompt, zeros' and other slides' in one batch.

    Args:
        captioner: in evaluation mode.
        visual, zeroed: float (R, width).
        others: float (K, R, width).
        token_ids: T tokens.
        prompt: what was asked; None: the model's own.

    Raises:
        ModelError: there is no token, or the sequence is too long for the language model.
    """
    rows = torch.cat([visual[None], zeroed[None].to(visual), others.to(visual)])
    logprobs = report_logprobs(captioner, rows, token_ids, prompt).double().cpu().numpy()
    return Scored(logprobs[0], logprobs[1], logprobs[2:])
