"""The folder of a training: whose it is, whether it is finished, and how its best checkpoint becomes the model."""

import json
import os
import shutil
from pathlib import Path

from wsi_mivpg.atomic import canonical_hash, write_text
from wsi_mivpg.errors import OutputError
from wsi_mivpg.training.cases import Cohort
from wsi_mivpg.training.checkpoints import STATE_FILE, last_checkpoint
from wsi_mivpg.training.model_card import model_card
from wsi_mivpg.training.progress import JsonLinesLog
from wsi_mivpg.training.recipe import Recipe, as_yaml

LOG_FILE = "training_log.jsonl"
SAMPLES_FILE = "samples.jsonl"
RECIPE_FILE = "recipe.json"
RESULT_FILE = "training.json"
MODEL, CHECKPOINTS, ALIGNMENT, TENSORBOARD = "model", "checkpoints", "alignment", "tensorboard"
_NOT_OF_THE_MODEL = shutil.ignore_patterns(
    "optimizer*", "scheduler*", "rng_state*", "trainer_state*", "training_args*", "pytorch_model_fsdp*"
)


def is_finished(checkpoint: Path) -> bool:
    """Whether a run was killed after its last checkpoint and before its model was written."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    stopped = bool(state["stateful_callbacks"].get("TrainerControl", {}).get("args", {}).get("should_training_stop"))
    return stopped or state["global_step"] >= state["max_steps"]


def publish(recipe: Recipe, cohort: Cohort, out_dir: Path, log: JsonLinesLog) -> None:
    """Make the model's folder of the best checkpoint, or of the last: whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    last = last_checkpoint(out_dir / CHECKPOINTS)
    assert last is not None
    state = json.loads((last / STATE_FILE).read_text(encoding="utf-8"))
    best = state["best_global_step"] if cohort.val else None
    chosen = last if best is None else last.with_name(f"checkpoint-{best}")
    writing = out_dir / ".model.writing.tmp"
    try:
        shutil.rmtree(writing, ignore_errors=True)
        shutil.copytree(chosen, writing, ignore=_NOT_OF_THE_MODEL)
        write_text(writing / "recipe.yaml", as_yaml(recipe))
        write_text(writing / "README.md", model_card(recipe, cohort, log, state["global_step"], best))
        write_text(writing / RESULT_FILE, json.dumps({"steps": state["global_step"], "best_step": best}))
        os.replace(writing, out_dir / MODEL)
    except OSError as error:  # copytree's own errors are of this kind too
        shutil.rmtree(writing, ignore_errors=True)
        raise OutputError(
            f"cannot write {out_dir / MODEL}: {error}; {chosen} is whole; make room, and the same command goes on"
        ) from error
    shutil.rmtree(out_dir / ALIGNMENT, ignore_errors=True)


def made_of(recipe: Recipe, cohort: Cohort) -> dict[str, object]:
    """Return what a training must have in common with the one that it goes on from."""
    chosen = [*cohort.train, *cohort.val]
    cases = [[case.case_id, case.split, list(case.reports), [p.name for p in case.bag_paths]] for case in chosen]
    return {"recipe": recipe.model_dump(mode="json"), "cases": canonical_hash(cases)}


def claim(out_dir: Path, whose: dict[str, object], resume: bool, replace: bool) -> None:
    """Write what is trained here; clear what another training left, if it may be replaced, or refuse to go on from it.

    Raises:
        OutputError: resuming what another recipe or other cases began, without `replace`.
    """
    file = out_dir / RECIPE_FILE
    stages = [out_dir / CHECKPOINTS, out_dir / ALIGNMENT]
    begun = (out_dir / MODEL).is_dir() or any(last_checkpoint(stage) for stage in stages)
    if begun and resume:
        earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if earlier == whose:
            return
        if not replace:
            raise OutputError(
                f"{out_dir} holds a checkpoint of another recipe or other cases; choose another folder or do not resume"
            )
    for folder in (*stages, out_dir / MODEL, out_dir / TENSORBOARD):
        shutil.rmtree(folder, ignore_errors=True)
    for name in (LOG_FILE, SAMPLES_FILE):
        (out_dir / name).unlink(missing_ok=True)
    write_text(file, json.dumps(whose, indent=2))
    (out_dir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
