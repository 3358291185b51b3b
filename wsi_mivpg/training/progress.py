"""What a training says while it runs: a log file, and how far it is and how long it will take."""

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from wsi_mivpg.atomic import write_text

Advance = Callable[[int, int, str], None]
"""Is told steps done, steps in all, and a few words."""


class JsonLinesLog(TrainerCallback):
    """Appends what the Trainer logs to a file, one JSON object a line; only the first process does."""

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
        if not state.is_world_process_zero:
            return
        entry = {"step": state.global_step, "seconds": round(time.monotonic() - self.started, 2), **(logs or {})}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Have the last step logged too, whatever its number; in every process, which must agree."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Return the lines that have a figure of this name, in order."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        return [entry for entry in map(json.loads, lines) if name in entry]

    def last(self, name: str) -> float:
        """Return the last figure of this name, NaN if there is none."""
        found = self.entries(name)
        return float(found[-1][name]) if found else float("nan")


class Progress(TrainerCallback):
    """Says after each step how far the training is, its last loss and the time left; only in the first process."""

    def __init__(self, advance: Advance, stage: str = "") -> None:
        self.advance, self.stage = advance, stage
        self.loss = ""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock where this run starts, which may be in the middle."""
        self.began, self.first = time.monotonic(), state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Remember the loss."""
        if "loss" in (logs or {}):
            self.loss = f"loss {(logs or {})['loss']:.3f}, "

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say it."""
        if state.is_world_process_zero:
            done = state.global_step - self.first
            left_s = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
            self.advance(state.global_step, state.max_steps, f"{self.stage}{self.loss}{duration(left_s)} left")


def duration(seconds: float) -> str:
    """Return a time for people: ``40 s``, ``12 min``, ``3 h 05 min``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of a JSON Lines file whose step a resumed training will do again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        write_text(path, "".join(line + "\n" for line in lines if json.loads(line)["step"] <= step))


def tensorboard(folder: Path) -> list[TrainerCallback]:
    """Return what writes the Trainer's figures for TensorBoard, if it is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(str(folder)))]
