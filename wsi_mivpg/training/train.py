"""From a recipe and cases to a trained model in a folder; what stopped goes on where it was.

It orders the work of the room. Making cohorts and extracting slides are other rooms' work.
"""

import difflib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import EarlyStoppingCallback, GenerationConfig, PrinterCallback, TrainerCallback, set_seed

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaptionerConfig, SlideCaptioner
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import RecipeError
from wsi_mivpg.mivpg import MivpgConfig
from wsi_mivpg.training.alignment import align
from wsi_mivpg.training.arguments import optimizer, training_arguments
from wsi_mivpg.training.cases import Cohort, usable
from wsi_mivpg.training.checkpoints import SaveEvery, last_checkpoint, steps_done
from wsi_mivpg.training.data import CaseDataset, EpochOfDraws, Sampling, collate, load_examples
from wsi_mivpg.training.folder import (
    ALIGNMENT,
    CHECKPOINTS,
    LOG_FILE,
    MODEL,
    RESULT_FILE,
    SAMPLES_FILE,
    TENSORBOARD,
    claim,
    is_finished,
    made_of,
    publish,
)
from wsi_mivpg.training.progress import Advance, JsonLinesLog, Progress, keep_until, tensorboard
from wsi_mivpg.training.recipe import Recipe
from wsi_mivpg.training.selection import WrittenReports
from wsi_mivpg.training.trainer import CaptionTrainer


@dataclass(frozen=True)
class TrainResult:
    """What a training made.

    Attributes:
        model_dir: the model, with its recipe and its card.
        steps: steps done, in all runs.
        best_step: the step whose weights the model has; None for the last, without validation cases.
        seconds: of this run only.
        final_loss: the last logged mean loss per report token.
    """

    model_dir: Path
    steps: int
    best_step: int | None
    seconds: float
    final_loss: float


def train(
    recipe: Recipe,
    cases: Sequence[Case],
    out_dir: Path,
    *,
    resume: bool = True,
    replace: bool = False,
    workers: int = 0,
    on_step: Advance = lambda done, total, words: None,
    note: Callable[[str], None] = lambda words: None,
) -> TrainResult:
    """Train on the cases of split ``train``, choose by those of ``val``, and write the model to ``out_dir/model``.

    Checkpoints go to ``out_dir/checkpoints``, one line per 10 steps to ``training_log.jsonl``, what the model writes at
    evaluations to ``samples.jsonl``. Under torchrun every process calls this; the first one writes.

    Args:
        recipe: what to train.
        cases: cases with bags; those of other splits are left alone.
        out_dir: where to.
        resume: go on from the last checkpoint there; else start anew.
        replace: start anew also where another recipe or other cases were trained, which is refused otherwise.
        workers: processes beside this one that read bags.
        on_step: is told after each step how far the training is.
        note: is told what a user may want to read: leaks that are allowed, sample reports.

    Raises:
        CohortError: cases that cannot be trained on; see `cases.usable` and `data.load_examples`.
        OutputError: resuming a folder that another recipe or other cases were trained in, or a full disk.
        TrainingError: the loss is not a number.
        BagError, ModelError: a bag or the language model cannot be loaded.
        RecipeError: a generation setting that Hugging Face does not know.
    """
    started = time.monotonic()
    process = PartialState(cpu=not torch.cuda.is_available())
    cohort = usable(recipe, cases)
    for leak in cohort.leaks:
        note(f"warning: {leak.message}")
    if process.is_main_process:
        claim(out_dir, made_of(recipe, cohort), resume, replace)
    process.wait_for_everyone()
    log = JsonLinesLog(out_dir / LOG_FILE)
    unfinished = not (out_dir / MODEL).is_dir()
    process.wait_for_everyone()  # all have looked before the first one writes
    if unfinished:
        _train(recipe, cohort, out_dir, log, workers, on_step, note)
        if process.is_main_process:
            publish(recipe, cohort, out_dir, log)
        process.wait_for_everyone()
    made = json.loads((out_dir / MODEL / RESULT_FILE).read_text(encoding="utf-8"))
    seconds = time.monotonic() - started
    return TrainResult(out_dir / MODEL, made["steps"], made["best_step"], seconds, log.last("loss"))


def _train(
    recipe: Recipe,
    cohort: Cohort,
    out_dir: Path,
    log: JsonLinesLog,
    workers: int,
    on_step: Advance,
    note: Callable[[str], None],
) -> None:
    checkpoint = last_checkpoint(out_dir / CHECKPOINTS)
    if checkpoint is not None and is_finished(checkpoint):
        return
    if sharded() and (recipe.alignment.steps or recipe.selection.metric != "loss"):
        raise RecipeError("FSDP has no alignment and writes no reports; set alignment.steps=0 selection.metric=loss")
    set_seed(recipe.seed)
    captioner = new_captioner(recipe, cohort.bag, cohort.tissue)
    limit = recipe.model.max_report_tokens
    examples, val_examples = (load_examples(some, captioner, limit) for some in (cohort.train, cohort.val))
    if checkpoint is None:
        seen = Sampling(recipe.seed, recipe.data.max_instances, recipe.alignment.instance_dropout)
        align(captioner, CaseDataset(examples, seen), recipe.alignment, recipe.seed, out_dir / ALIGNMENT, on_step)
    if recipe.precision == "bf16" and not sharded():
        hold_base_in_bf16(captioner)
    if recipe.optim.gradient_checkpointing:
        captioner.gradient_checkpointing_enable()
    choose = bool(cohort.val)
    arguments = training_arguments(recipe, out_dir / CHECKPOINTS, choose=choose, workers=workers)
    if arguments.process_index == 0:
        for file in (LOG_FILE, SAMPLES_FILE):
            keep_until(out_dir / file, steps_done(checkpoint) if checkpoint else 0)
    dataset = CaseDataset(examples, Sampling(recipe.seed, recipe.data.max_instances, recipe.optim.instance_dropout))
    callbacks: list[TrainerCallback] = [EpochOfDraws(dataset), SaveEvery(recipe.optim.save_every), log]
    if arguments.process_index == 0:
        callbacks += [Progress(on_step), *tensorboard(out_dir / TENSORBOARD)]
    written = None
    if choose and not sharded():
        scored = recipe.selection.metric != "loss"
        some = cohort.val[: recipe.selection.max_cases]
        written = WrittenReports(
            some, val_examples, scored=scored, file=out_dir / SAMPLES_FILE, seed=recipe.seed, note=note
        )
    if choose and recipe.selection.patience is not None:
        callbacks.append(EarlyStoppingCallback(recipe.selection.patience))
    trainer = CaptionTrainer(
        written=written,
        model=captioner,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=CaseDataset(val_examples) if choose else None,
        data_collator=collate,
        optimizers=(optimizer(captioner, recipe), None),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def new_captioner(recipe: Recipe, bag: FeatureBag, tissue: dict[str, Any] | None = None) -> SlideCaptioner:
    """Build the untrained model of a recipe for bags such as this one, whose tissue was found so."""
    config = captioner_config(recipe, bag, tissue)
    if recipe.model.from_blip2 is None:
        return SlideCaptioner.create(config)
    return SlideCaptioner.from_blip2(recipe.model.from_blip2, config=config)


def captioner_config(recipe: Recipe, bag: FeatureBag, tissue: dict[str, Any] | None = None) -> CaptionerConfig:
    """Return the model's configuration: the recipe's model and the contract with the bags.

    Raises:
        RecipeError: a generation setting that Hugging Face does not know.
    """
    model = recipe.model
    known = GenerationConfig().to_dict()
    for name in model.generation:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise RecipeError(
                f"model.generation.{name}: GenerationConfig has no such setting"
                + (f"; did you mean {near[0]}?" if near else "")
            )
    return CaptionerConfig(
        adapter=model.adapter,
        mivpg=_adapter(recipe, bag.feature_dim),
        language_model=model.language_model,
        language_model_revision=model.language_model_revision,
        trains=model.trains,
        lora=model.lora.model_dump() if model.trains.startswith("lora") else None,
        prompt=model.prompt,
        prompt_template=model.prompt_template,
        max_new_tokens=model.max_new_tokens,
        max_report_tokens=model.max_report_tokens,
        generation=model.generation,
        max_instances=model.max_instances,
        encoder=bag.encoder,
        encoder_weights_sha256=bag.encoder_weights_sha256,
        feature_dim=bag.feature_dim,
        target_mpp=bag.target_mpp,
        tile_px=bag.tile_px,
        tissue=tissue,
        stain=model.stain,
        demonstration=model.demonstration,
    )


def _adapter(recipe: Recipe, feature_dim: int) -> dict[str, Any]:
    """Return `MivpgConfig`'s arguments.

    Of a BLIP-2 only what the recipe states is another; features as wide as its own then enter unchanged, as there.
    """
    if recipe.model.from_blip2 is None:
        return {**recipe.model.mivpg.model_dump(), "input_dim": feature_dim}
    stated = recipe.model.mivpg.model_dump(exclude_unset=True)
    own = stated.get("encoder_hidden_size", MivpgConfig().encoder_hidden_size)
    return stated if feature_dim == own else {**stated, "input_dim": feature_dim}


def sharded() -> bool:
    """Whether accelerate was asked to spread the weights over the processes; FSDP wants them all of one type."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def hold_base_in_bf16(captioner: SlideCaptioner) -> None:
    """Hold the frozen weights in bfloat16, so that autocast does not convert them at every step."""
    for parameter in captioner.language_model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)
