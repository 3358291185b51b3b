"""From a recipe to what Hugging Face's Trainer is told: its arguments and the optimiser."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.training.recipe import Recipe

DEFAULT_STEPS = 1000
DEFAULT_WARMUP = 50
_LOWER_IS_BETTER = ("loss",)


def training_arguments(recipe: Recipe, folder: Path, *, choose: bool, workers: int = 0) -> TrainingArguments:
    """Return the Trainer's arguments.

    Args:
        recipe: what is trained.
        folder: where checkpoints go.
        choose: whether there are validation cases to choose the best step by.
        workers: processes that read bags.
    """
    optim, selection = recipe.optim, recipe.selection
    every = selection.every or optim.save_every
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=-1 if optim.epochs is not None else optim.steps or DEFAULT_STEPS,
        num_train_epochs=optim.epochs or 1.0,
        per_device_train_batch_size=optim.batch_size,
        per_device_eval_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.gradient_accumulation,
        lr_scheduler_type="constant_with_warmup" if optim.schedule == "constant" else optim.schedule,
        warmup_steps=_warmup(recipe),
        max_grad_norm=optim.max_grad_norm,
        eval_strategy="steps" if choose else "no",
        eval_steps=every,
        save_steps=every if choose else optim.save_every,
        save_total_limit=2 if choose else 1,  # the best and the last
        load_best_model_at_end=choose,
        metric_for_best_model=selection.metric if choose else None,
        greater_is_better=selection.metric not in _LOWER_IS_BETTER if choose else None,
        bf16=recipe.precision == "bf16",
        seed=recipe.seed,
        dataloader_num_workers=workers,
        restore_callback_states_from_checkpoint=True,  # the patience that is used up
        **common_arguments(),
    )


def common_arguments() -> dict[str, Any]:
    """Return what every training has in common: the device, and what the Trainer shall leave to us."""
    return {
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 10,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "label_names": ["labels"],
    }


def _warmup(recipe: Recipe) -> float:
    """The Trainer reads a number below 1 as a share of all steps."""
    optim = recipe.optim
    if optim.warmup_ratio is not None:
        return optim.warmup_ratio
    return DEFAULT_WARMUP if optim.warmup_steps is None else optim.warmup_steps


def optimizer(captioner: SlideCaptioner, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with the adapter's and the language side's learning rates; vectors (biases, norms) are not decayed."""
    optim = recipe.optim
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in captioner.named_parameters():
        if parameter.requires_grad:
            rate = optim.lr_adapter if name.startswith("mivpg.") else optim.lr_language
            decay = optim.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    settings = [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]
    return torch.optim.AdamW(settings, betas=optim.betas)
