"""Before the language model listens: the adapter learns to say which words a report has, from the bag alone.

It plays the part of BLIP-2's first stage, on any slide-report pairs: without it, the language model learns how
reports sound long before the gradient that passes through it has taught the adapter to look (measured: after 200
steps the text did not depend on the slide). It uses the language model's embeddings, never the model.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PrinterCallback, TrainingArguments

from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.captioner.inputs import pack
from wsi_mivpg.training.arguments import common_arguments
from wsi_mivpg.training.checkpoints import WholeCheckpoints, last_checkpoint, steps_done
from wsi_mivpg.training.data import CaseDataset, EpochOfDraws, Example, Item
from wsi_mivpg.training.progress import Advance, JsonLinesLog, Progress, keep_until
from wsi_mivpg.training.settings import AlignmentSettings

_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")
_THRESHOLDS = torch.arange(5, 100, 5)
_SAVE_EVERY = 500
LOG_FILE = "log.jsonl"


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


class AlignmentModel(nn.Module):
    """Adapter and projection, and what reads the mean prompt token: words by their likeness to the language model's
    token embeddings, percentages linearly.
    """

    def __init__(self, captioner: SlideCaptioner, token_ids: Tensor) -> None:
        super().__init__()
        self.mivpg = captioner.mivpg
        self.projection = captioner.language_projection
        self.visual_prompt = captioner.visual_prompt  # a method: the language model is no part of this module
        table = cast(nn.Embedding, captioner.language_model.get_input_embeddings())
        embeddings = table.weight.detach()[token_ids].float()
        self.register_buffer("directions", F.normalize(embeddings - embeddings.mean(dim=0), dim=1))
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        self.bias = nn.Parameter(torch.zeros(len(token_ids)))
        self.percentage = nn.Linear(embeddings.shape[1], len(_THRESHOLDS))

    def forward(
        self,
        instances: Tensor,
        slide_sizes: list[list[int]],
        coords: Tensor | None,
        words: Tensor,
        percentages: Tensor,
    ) -> dict[str, Tensor]:
        """Compare the reading with float (B, V) words and (B, 19) percentage steps; NaN steps are not compared."""
        mean = self.visual_prompt(instances, slide_sizes, coords)[0].mean(dim=1)
        unit = F.normalize(mean, dim=1)
        likeness = unit @ self.get_buffer("directions").T
        loss = F.binary_cross_entropy_with_logits(self.sharpness * likeness + self.bias, words)
        stated = ~percentages.isnan()
        read = self.percentage(unit * unit.shape[1] ** 0.5)
        if stated.any():
            loss = loss + F.binary_cross_entropy_with_logits(read[stated], percentages[stated])
        return {"loss": loss}


class _Collator:
    """Packs cases with what their drawn reports state."""

    def __init__(self, captioner: SlideCaptioner, targets: ReportTargets) -> None:
        self.decode = captioner.tokenizer.decode
        self.targets = targets

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        reports = [item["report"] for item in items]
        return {
            "words": torch.stack([self.targets.words(report) for report in reports]),
            "percentages": torch.stack([self.targets.steps(str(self.decode(list(report)))) for report in reports]),
            **pack([item["case"] for item in items]),
        }


def align(
    captioner: SlideCaptioner,
    dataset: CaseDataset,
    settings: AlignmentSettings,
    seed: int,
    folder: Path,
    on_step: Advance = lambda done, total, words: None,
) -> float:
    """Train adapter and projection on a data set; return the mean of the last tenth of the logged losses.

    Args:
        captioner: left in training mode. The language model and LoRA are not touched.
        dataset: the training cases, as far as a step may see them.
        settings: steps, batch size, learning rate.
        seed: decides batches.
        folder: for checkpoints; a stopped alignment goes on from there.
        on_step: is told how far it is.
    """
    if not settings.steps:
        return float("nan")
    targets = ReportTargets(dataset.examples)
    model = AlignmentModel(captioner, targets.token_ids)
    decayed = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(decayed, settings.lr, total_steps=settings.steps, pct_start=0.1)
    log, begun = JsonLinesLog(folder / LOG_FILE), last_checkpoint(folder)
    if PartialState().is_main_process:
        keep_until(log.path, steps_done(begun) if begun else 0)
    trainer = WholeCheckpoints(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_size,
            save_steps=_SAVE_EVERY,
            save_total_limit=1,
            seed=seed,
            **common_arguments(),
        ),
        train_dataset=dataset,
        data_collator=_Collator(captioner, targets),
        optimizers=(decayed, schedule),  # type: ignore[arg-type]  # any schedule will do
        callbacks=[EpochOfDraws(dataset), Progress(on_step, "alignment, "), log],
    )
    trainer.remove_callback(PrinterCallback)
    if begun is not None and steps_done(begun) >= settings.steps:
        trainer._load_from_checkpoint(str(begun))
    else:
        trainer.train(resume_from_checkpoint=str(begun) if begun else None)
    losses = [float(entry["loss"]) for entry in log.entries("loss")]
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)
