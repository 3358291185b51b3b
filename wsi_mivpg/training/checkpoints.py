"""Checkpoints that appear whole or not at all, for any training by Hugging Face's Trainer.

What the Trainer would write file by file into its place is written beside it, brought to the disk, and renamed.
"""

import os
import shutil
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, rotate_checkpoints

from wsi_mivpg.errors import OutputError

STATE_FILE = "trainer_state.json"
_WRITING = "writing-"


class WholeCheckpoints(Trainer):
    """A Trainer whose checkpoint folders are complete from the moment they have their name."""

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        writing = folder.with_name(_WRITING + folder.name)
        if self.args.should_save:
            for left_over in folder.parent.glob(f"{_WRITING}*"):
                shutil.rmtree(left_over, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            self._write(writing, folder)
        except (OSError, RuntimeError, SafetensorError, OutputError) as error:
            shutil.rmtree(writing, ignore_errors=True)
            raise OutputError(
                f"cannot write the checkpoint {folder}: {error}; {_what_is_left(folder.parent)} make room, "
                "and the same command goes on"
            ) from error
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(writing, folder)
            rotate_checkpoints(str(folder.parent), self.args.save_total_limit, self.state.best_model_checkpoint)

    def _write(self, writing: Path, folder: Path) -> None:
        """Write all files of a checkpoint that will be called `folder`."""
        self.store_flos()
        self.save_model(str(writing), _internal_call=True)
        self._save_optimizer_and_scheduler(str(writing))
        self._save_rng_state(str(writing))
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(folder)
        if not self.args.should_save:
            return
        for kept in [*self.callback_handler.callbacks, self.control]:
            if isinstance(kept, ExportableState):
                cast(dict[str, Any], self.state.stateful_callbacks)[type(kept).__name__] = kept.state()
        self.state.save_to_json(str(writing / STATE_FILE))
        for file in writing.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())


class SaveEvery(TrainerCallback):
    """Asks for a checkpoint every so many steps, besides those that the Trainer makes at its evaluations."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Find the best checkpoint again where the whole folder was moved since it was written."""
        best = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
        if state.best_global_step and best.is_dir():
            state.best_model_checkpoint = str(best)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for it."""
        if state.global_step % self.steps == 0:
            control.should_save = True


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a folder."""
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return None if found is None else Path(found)


def steps_done(checkpoint: Path) -> int:
    """Return how many steps of training a checkpoint has behind it."""
    return int(checkpoint.name.rpartition("-")[2])


def _what_is_left(folder: Path) -> str:
    last = last_checkpoint(folder)
    return f"{last} is whole;" if last else "there is no earlier one;"
