"""One system, one seed, one number of cases: train it with the package's own trainer, let it write, judge each case."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PrinterCallback, TrainerCallback, set_seed

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.evaluation import cider, text_scores
from wsi_mivpg.training.alignment import align
from wsi_mivpg.training.arguments import optimizer, training_arguments
from wsi_mivpg.training.data import CaseDataset, EpochOfDraws, Example, Sampling, collate
from wsi_mivpg.training.recipe import Recipe
from wsi_mivpg.training.trainer import CaptionTrainer

from .cohort import VirtualCase
from .systems import SYSTEMS, adapter_parameters, new_captioner, settings_of
from .wording import FIELDS, all_words, read_report, score

INSTANCE_DROPOUT = 0.1


@dataclass(frozen=True)
class Budget:
    """What every system is given: steps of the adapter alone, steps of everything, cases per step, learning rates."""

    alignment_steps: int = 1200
    steps: int = 400
    batch_size: int = 8
    lr_alignment: float = 1.5e-3
    lr_adapter: float = 1e-4
    lr_language: float = 3e-3
    weight_decay: float = 0.05
    warmup_steps: int = 40


class InMemory(CaseDataset):
    """The package's data set over cases that lie in memory and not in files."""

    def __init__(self, cases: Sequence[VirtualCase], reports: Sequence[tuple[int, ...]], seed: int) -> None:
        examples = [Example(case.bags.case_id, (), (report,)) for case, report in zip(cases, reports, strict=True)]
        super().__init__(examples, Sampling(seed, instance_dropout=INSTANCE_DROPOUT))
        self.cases = cases

    def case(self, index: int) -> CaseBags:
        """Return a case's instances, in float32."""
        return whole(self.cases[index].bags)


class _Losses(TrainerCallback):
    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append((int(state.global_step), round(float(logs["loss"]), 4)))


def whole(bags: CaseBags) -> CaseBags:
    """Return the case with features in float32."""
    return CaseBags(bags.case_id, cast(Tensor, bags.instances).float(), bags.slide_sizes, bags.cells)


def fit(captioner: SlideCaptioner, train: Sequence[VirtualCase], seed: int, budget: Budget) -> list[tuple[int, float]]:
    """Train a captioner in place; return the losses per report token, (step, mean since the last)."""
    recipe = Recipe.model_validate(
        {
            "name": "instance correlation",
            "seed": seed,
            "alignment": {
                "steps": budget.alignment_steps,
                "batch_size": budget.batch_size,
                "lr": budget.lr_alignment,
                "instance_dropout": INSTANCE_DROPOUT,
            },
            "optim": {
                "steps": budget.steps,
                "batch_size": budget.batch_size,
                "lr_adapter": budget.lr_adapter,
                "lr_language": budget.lr_language,
                "weight_decay": budget.weight_decay,
                "warmup_steps": budget.warmup_steps,
                "save_every": budget.steps,
            },
        }
    )
    set_seed(seed)
    reports = [tuple(captioner.encode_report(case.report)) for case in train]
    losses, dataset = _Losses(), InMemory(train, reports, seed)
    # Written out, attention over so few and narrow heads takes half the time of the fused kernel on a processor.
    with tempfile.TemporaryDirectory() as folder, sdpa_kernel(SDPBackend.MATH):
        align(captioner, dataset, recipe.alignment, seed, Path(folder) / "alignment")
        trainer = CaptionTrainer(
            model=captioner,
            args=training_arguments(recipe, Path(folder), choose=False),
            train_dataset=dataset,
            data_collator=collate,
            optimizers=(optimizer(captioner, recipe), None),
            callbacks=[EpochOfDraws(dataset), losses],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return losses.losses


def judge(texts: Sequence[str], cases: Sequence[VirtualCase], source: str) -> dict[str, Any]:
    """Return per field each case's outcome (1, 0, None where not asked), and the caption metrics."""
    outcomes = [score(read_report(text, source), case.truth) for text, case in zip(texts, cases, strict=True)]
    written = {case.bags.case_id: text for case, text in zip(cases, texts, strict=True)}
    references = {case.bags.case_id: [case.report] for case in cases}
    return {
        "fields": {name: [None if one[name] is None else int(one[name] or 0) for one in outcomes] for name in FIELDS},
        "captions": {**text_scores(written, references), "cider": cider(written, references)},
    }


def run_one(
    system: str,
    train: Sequence[VirtualCase],
    test: Sequence[VirtualCase],
    source: str,
    seed: int,
    budget: Budget,
) -> dict[str, Any]:
    """Train, write and judge; return what is kept of it.

    Args:
        system: a name of `SYSTEMS`.
        train: cases to train on.
        test: cases to write about.
        source: of the tiles.
        seed: of weights, order and draws.
        budget: steps and rates.
    """
    captioner = new_captioner(SYSTEMS[system], all_words(source), seed)
    began, cpu_began = time.perf_counter(), time.process_time()
    losses = fit(captioner, train, seed, budget)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    captioner.eval()
    generated = captioner.generate([whole(case.bags) for case in test], batch_size=64)
    texts = [one.text for one in generated]
    settings = settings_of(SYSTEMS[system])
    return {
        "system": system,
        "source": source,
        "seed": seed,
        "n_train": len(train),
        "n_test": len(test),
        "budget": asdict(budget),
        "adapter_parameters": adapter_parameters(SYSTEMS[system].adapter, settings),
        "parameters": sum(parameter.numel() for parameter in captioner.parameters()),
        "settings": settings,
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(cpu_seconds, 1),
        "write_seconds": round(time.perf_counter() - began - seconds, 1),
        "threads": int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())),
        "mean_instances": float(np.mean([len(case.bags) for case in train])),
        "losses": losses[:: max(1, len(losses) // 30)],
        "final_loss": float(np.mean([loss for _, loss in losses[-10:]])),
        **judge(texts, test, source),
        "texts": texts[:20],
    }
