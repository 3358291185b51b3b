"""Before the language model listens: the adapter learns to say which words a report has, from the bag alone.

It plays the part of BLIP-2's first stage, on any slide-report pairs: without it, the language model learns how
reports sound long before the gradient that passes through it has taught the adapter to look (measured: after 200
steps the text did not depend on the slide). It uses the language model's embeddings, never the model.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.training.data import Collator, Example
from wsi_mivpg.training.recipe import AlignmentSettings

_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")
_THRESHOLDS = torch.arange(5, 100, 5)


class ReportTargets:
    """What a report states, as numbers: which tokens it has, and where its first percentage lies.

    Tokens that nearly every report has, or that only one has, say nothing and are left out.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        counts = Counter(token for example in examples for token in set().union(*example.reports))
        kept = [token for token, count in counts.items() if 2 <= count <= 0.9 * len(examples)]
        self.token_ids = torch.tensor(sorted(kept), dtype=torch.long)

    def words(self, report: Sequence[int]) -> Tensor:
        """Return float32 (V,): 1 for each informative token that the report has."""
        return torch.isin(self.token_ids, torch.tensor(report)).float()

    @staticmethod
    def steps(text: str) -> Tensor:
        """Return float32 (19,): 1 where the first percentage reaches 5, 10 … 95; NaN where there is none."""
        found = _PERCENT.search(text)
        if found is None:
            return torch.full((len(_THRESHOLDS),), float("nan"))
        return (float(found[1]) >= _THRESHOLDS).float()


class _Reader(nn.Module):
    """Reads the mean prompt token: words by their likeness to the model's token embeddings, percentages linearly."""

    def __init__(self, captioner: SlideCaptioner, token_ids: Tensor) -> None:
        super().__init__()
        table = cast(nn.Embedding, captioner.language_model.get_input_embeddings())
        embeddings = table.weight.detach()[token_ids].float()
        self.register_buffer("directions", F.normalize(embeddings - embeddings.mean(dim=0), dim=1))
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        self.bias = nn.Parameter(torch.zeros(len(token_ids)))
        self.percentage = nn.Linear(embeddings.shape[1], len(_THRESHOLDS))

    def forward(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """(B, R, width of the language model) -> logits (B, V) of words and (B, 19) of percentage steps."""
        mean = projected.mean(dim=1)
        unit = F.normalize(mean, dim=1)
        likeness = unit @ self.get_buffer("directions").T
        return self.sharpness * likeness + self.bias, self.percentage(unit * unit.shape[1] ** 0.5)


def align(captioner: SlideCaptioner, examples: Sequence[Example], settings: AlignmentSettings, seed: int) -> float:
    """Train adapter and projection on `examples`; return the mean loss of the last tenth of the steps.

    Args:
        captioner: in any mode; left in training mode. The language model and LoRA are not touched.
        examples: packed and sampled as in training proper.
        settings: steps, batch size, learning rate, share of instances left out.
        seed: decides batches and draws.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = ReportTargets(examples)
    texts = {
        report: str(captioner.tokenizer.decode(list(report))) for example in examples for report in example.reports
    }
    reader = _Reader(captioner, targets.token_ids)
    adapter = [*captioner.mivpg.parameters(), *captioner.language_projection.parameters()]
    optimizer = torch.optim.AdamW([*adapter, *reader.parameters()], lr=settings.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=settings.steps, pct_start=0.1)
    collate = Collator(seed, settings.instance_dropout)
    captioner.train()
    losses: list[float] = []
    while len(losses) < settings.steps:
        order = torch.randperm(len(examples), generator=generator)
        for chosen in order.split(settings.batch_size)[: settings.steps - len(losses)]:
            batch = collate([examples[int(index)] for index in chosen])
            reports = [tuple(row[row >= 0].tolist()) for row in batch["labels"]]
            prompt, _ = captioner.visual_prompt(batch["instances"], batch["slide_sizes"])
            words, steps = reader(prompt)
            wanted_steps = torch.stack([targets.steps(texts[report]) for report in reports])
            stated = ~wanted_steps.isnan()
            wanted_words = torch.stack([targets.words(report) for report in reports])
            loss = F.binary_cross_entropy_with_logits(words, wanted_words)
            if stated.any():
                loss = loss + F.binary_cross_entropy_with_logits(steps[stated], wanted_steps[stated])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(adapter, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)
