"""Trains a report model with Hugging Face's Trainer: two learning rates, cosine decay, resumable.

It trains only; making cohorts, extracting and scoring are other rooms' work.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from wsi_mivpg.atomic import canonical_hash, write_text
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaptionerConfig, SlideCaptioner
from wsi_mivpg.captioner.trainable import hold_frozen_in
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError, OutputError
from wsi_mivpg.training.alignment import align
from wsi_mivpg.training.data import CaseDataset, Collator, load_examples, made_alike
from wsi_mivpg.training.recipe import Recipe

LOG_FILE = "training_log.jsonl"
RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class TrainResult:
    """What a training made. `seconds` counts this run only; `final_loss` is the last logged mean loss per token."""

    model_dir: Path
    steps: int
    seconds: float
    final_loss: float


def train(recipe: Recipe, cases: Sequence[Case], out_dir: Path, *, resume: bool = True) -> TrainResult:
    """Train on the cases of split ``train`` and write the model to ``out_dir/model``.

    Checkpoints go to ``out_dir/checkpoints``, one line per 10 steps to ``out_dir/training_log.jsonl``.

    Args:
        recipe: what to train.
        cases: cases with bags; other splits are left alone.
        out_dir: where to.
        resume: go on from the last checkpoint there; else start anew.

    Raises:
        CohortError: no training case, a case without tiles or reports, or bags that were made differently.
        OutputError: resuming a folder that another recipe or other cases were trained in.
        BagError, ModelError: a bag or the language model cannot be loaded.
    """
    started = time.monotonic()
    chosen = [case for case in cases if case.split == "train"]
    if not chosen:
        raise CohortError("no case has split 'train'; check the manifest's splits")
    bag = made_alike(chosen)
    checkpoint = _prepare(recipe, chosen, out_dir, resume)
    set_seed(recipe.seed)
    captioner = SlideCaptioner.create(captioner_config(recipe, bag))
    examples = load_examples(chosen, captioner)
    if checkpoint is None and recipe.alignment.steps:
        align(captioner, examples, recipe.alignment, recipe.seed)
    if recipe.precision == "bf16":
        hold_frozen_in(captioner.language_model, torch.bfloat16)
    collator = Collator(recipe.seed, recipe.optim.instance_dropout)
    log = JsonLinesLog(out_dir / LOG_FILE)
    trainer = _ResumableTrainer(
        model=captioner,
        args=_arguments(recipe, out_dir),
        train_dataset=CaseDataset(examples),
        data_collator=collator,
        optimizers=(_optimizer(captioner, recipe), None),
        callbacks=[log],
    )
    if checkpoint and _steps_done(checkpoint) >= recipe.optim.steps:
        captioner.load_trained(Path(checkpoint))
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    model_dir = out_dir / "model"
    captioner.save_pretrained(model_dir)
    seconds = time.monotonic() - started
    return TrainResult(model_dir, recipe.optim.steps, seconds, log.last_loss())


def captioner_config(recipe: Recipe, bag: FeatureBag) -> CaptionerConfig:
    """Return the model's configuration: the recipe's sizes and the contract with the bags."""
    model = recipe.model
    return CaptionerConfig(
        mivpg={**model.mivpg.model_dump(), "input_dim": bag.feature_dim},
        language_model=model.language_model,
        trains="lora" if model.lora else "adapter",
        lora=model.lora.model_dump() if model.lora else None,
        prompt=model.prompt,
        max_new_tokens=model.max_new_tokens,
        encoder=bag.encoder,
        encoder_weights_sha256=bag.encoder_weights_sha256,
        feature_dim=bag.feature_dim,
        target_mpp=bag.target_mpp,
        tile_px=bag.tile_px,
        demonstration=model.demonstration,
    )


class JsonLinesLog(TrainerCallback):
    """Appends what the Trainer logs to a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write step, seconds since the start of this run, and the Trainer's figures."""
        entry = {
            "step": state.global_step,
            "seconds": round(time.monotonic() - self.started, 2),
            **(logs or {}),
        }
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def last_loss(self) -> float:
        """Return the last loss in the file, NaN if there is none."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
        return float(losses[-1]) if losses else float("nan")


class _ResumableTrainer(Trainer):
    """Loads a checkpoint's trained tensors strictly, and lets the collator's draws go on where they stopped."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        captioner, collator = self.model, self.data_collator
        assert isinstance(captioner, SlideCaptioner)
        assert isinstance(collator, Collator)
        captioner.load_trained(folder)
        collator.batches_made = _steps_done(resume_from_checkpoint)


def _steps_done(checkpoint: str) -> int:
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    return int(state["global_step"])


def _arguments(recipe: Recipe, out_dir: Path) -> TrainingArguments:
    optim = recipe.optim
    return TrainingArguments(
        output_dir=str(out_dir / "checkpoints"),
        max_steps=optim.steps,
        per_device_train_batch_size=optim.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=optim.warmup_steps,
        max_grad_norm=optim.max_grad_norm,
        use_cpu=not torch.cuda.is_available(),
        bf16=recipe.precision == "bf16",
        seed=recipe.seed,
        logging_steps=10,
        logging_first_step=True,
        save_steps=optim.save_every,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        label_names=["labels"],
    )


def _optimizer(captioner: SlideCaptioner, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with the adapter's and LoRA's learning rates; vectors (biases, norms) are not decayed."""
    optim = recipe.optim
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in captioner.named_parameters():
        if parameter.requires_grad:
            rate = optim.lr_adapter if name.startswith("mivpg.") else optim.lr_lora
            decay = optim.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    settings = [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]
    return torch.optim.AdamW(settings)


def _prepare(recipe: Recipe, cases: Sequence[Case], out_dir: Path, resume: bool) -> str | None:
    """Write the recipe beside the model; return the checkpoint to go on from, if any."""
    made_of = {
        "recipe": recipe.model_dump(mode="json"),
        "cases": canonical_hash(
            [[case.case_id, list(case.reports), [p.name for p in case.bag_paths]] for case in cases]
        ),
    }
    checkpoints = out_dir / "checkpoints"
    found: str | None = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if not resume or found is None:
        (out_dir / LOG_FILE).unlink(missing_ok=True)
        write_text(out_dir / RECIPE_FILE, json.dumps(made_of, indent=2))
        os.makedirs(checkpoints, exist_ok=True)
        return None
    recipe_file = out_dir / RECIPE_FILE
    earlier = json.loads(recipe_file.read_text(encoding="utf-8")) if recipe_file.is_file() else None
    if earlier != made_of:
        raise OutputError(
            f"{out_dir} holds a checkpoint of another recipe or other cases; choose another folder or do not resume"
        )
    return found
