"""What a training says can be read: by people, and by TensorBoard where it is installed."""

import importlib.util
from pathlib import Path

import pytest

from tests.training.tiny_cohort import tiny_recipe, write_cases
from wsi_mivpg.training import train
from wsi_mivpg.training.progress import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (40.4, "40 s"), (100, "2 min"), (3600, "60 min"), (11_100, "3 h 05 min"), (360_000, "100 h 00 min")],
)
def test_a_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_shows_losses_and_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = tiny_recipe(tmp_path / "base", selection={"metric": "rouge_l", "every": 4})
    train(recipe, write_cases(tmp_path, val=1), tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("eval/rouge_l")] == [4, 8]
    assert {"train/loss", "train/learning_rate", "eval/loss"} <= set(events.Tags()["scalars"])
