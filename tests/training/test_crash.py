"""Whatever happens to a run, what it had is whole, and the same command ends in the same weights."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.crash import recipe_of
from tests.training.test_train import assert_same_weights, weights
from tests.training.tiny_cohort import tiny_recipe, write_case, write_cases
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.errors import TrainingError
from wsi_mivpg.training import TrainResult, train
from wsi_mivpg.training.checkpoints import last_checkpoint

ROOT = Path(__file__).resolve().parents[2]
FILES = {"model.safetensors", "config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}


def run(place: Path, out: Path, when: str) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own."""
    command = [sys.executable, "-m", "tests.training.crash", str(place), str(out), when]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A folder with bags and language model, and the result of a training that nothing happened to."""
    place = tmp_path_factory.mktemp("undisturbed")
    return place, train(recipe_of(place), write_cases(place / "bags"), place / "out")


@pytest.mark.parametrize(
    ("when", "last"),
    [
        ("forward:2", None),
        ("forward:9", "checkpoint-6"),
        ("writing:1", None),  # the alignment's own checkpoint
        ("writing:2", None),
        ("writing:4", "checkpoint-6"),
        ("writing:5", "checkpoint-9"),
    ],
)
def test_a_killed_run_keeps_whole_checkpoints_and_goes_on_to_the_same_weights(
    tmp_path: Path, undisturbed: tuple[Path, TrainResult], when: str, last: str | None
) -> None:
    place, whole = undisturbed
    killed = run(place, tmp_path, when)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    found = last_checkpoint(tmp_path / "checkpoints")
    assert (found.name if found else None) == last  # at most one interval of three steps is lost
    if found:
        assert {path.name for path in found.iterdir()} >= FILES
        assert len(load_file(found / "model.safetensors")) == len(weights(whole))
    resumed = train(recipe_of(place), write_cases(place / "bags"), tmp_path)
    assert_same_weights(weights(whole), weights(resumed))
    assert not list(tmp_path.rglob("writing-*"))


def test_a_full_disk_at_a_checkpoint_leaves_the_previous_one_intact(
    tmp_path: Path, undisturbed: tuple[Path, TrainResult]
) -> None:
    place, whole = undisturbed
    stopped = run(place, tmp_path, "full:4")  # the alignment's, 3, 6, and now 9
    assert stopped.returncode == 1, stopped.stderr
    assert "error: cannot write the checkpoint" in stopped.stderr
    assert "checkpoint-6 is whole; make room, and the same command goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    (left,) = (tmp_path / "checkpoints").iterdir()
    assert left.name == "checkpoint-6"
    assert {path.name for path in left.iterdir()} >= FILES
    resumed = train(recipe_of(place), write_cases(place / "bags"), tmp_path)
    assert_same_weights(weights(whole), weights(resumed))


@pytest.fixture
def small_disk(tmp_path: Path, undisturbed: tuple[Path, TrainResult]) -> Path:
    """Mount a file system with room for the alignment's checkpoint and one and a half of the training's, or skip."""
    checkpoint = undisturbed[0] / "out" / "checkpoints" / "checkpoint-12"
    size = sum(-(-file.stat().st_size // 4096) * 4096 for file in checkpoint.iterdir())
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(2.5 * size)}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs more rights than this process has")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_file_system_that_is_really_full_does_no_harm_either(
    small_disk: Path, undisturbed: tuple[Path, TrainResult]
) -> None:
    place, whole = undisturbed
    stopped = run(place, small_disk, "none:0")
    assert stopped.returncode == 1, stopped.stderr
    assert "checkpoint-3 is whole; make room" in stopped.stderr
    (left,) = (small_disk / "checkpoints").iterdir()
    assert {path.name for path in left.iterdir()} >= FILES
    assert len(load_file(left / "model.safetensors")) == len(weights(whole))


@pytest.mark.parametrize("what", ["features", "loss"])
def test_what_is_not_a_number_stops_the_training_and_names_the_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    cases = [*write_cases(tmp_path, train=3), write_case(tmp_path, "broken", 1)]
    recipe = tiny_recipe(tmp_path / "base", optim={"batch_size": 4, "save_every": 1, "instance_dropout": 0.0})
    marked = 100.0 if what == "loss" else math.nan
    view, forward, calls = FeatureBag.features_view, SlideCaptioner.forward, 0

    def features_view(bag: FeatureBag):
        found = view(bag)
        if calls >= 3 and bag.slide_id.startswith("broken"):
            found = found.copy()
            found[0, 0] = marked
        return found

    def counting(self: SlideCaptioner, instances: torch.Tensor, *args, **kwargs):
        nonlocal calls
        calls += 1
        output = forward(self, instances, *args, **kwargs)
        if instances.max() == marked:
            output["loss"] = output.loss * math.nan
        return output

    monkeypatch.setattr(FeatureBag, "features_view", features_view)
    monkeypatch.setattr(SlideCaptioner, "forward", counting)
    said = {"loss": "the loss is nan", "features": "holds NaN or infinity"}[what]
    with pytest.raises(TrainingError, match=rf"step \d: .*{said}.*, with 'broken'; .*checkpoint-\d is kept") as stopped:
        train(recipe, cases, tmp_path / "out")
    assert "bags check" in str(stopped.value)
    kept = last_checkpoint(tmp_path / "out" / "checkpoints")
    assert kept is not None
    assert all(tensor.isfinite().all() for tensor in load_file(kept / "model.safetensors").values())
    assert not (tmp_path / "out" / "model").exists()


def test_a_gradient_that_is_not_a_number_never_reaches_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = SlideCaptioner.forward, 0

    def exploding(self: SlideCaptioner, *args, **kwargs):
        nonlocal calls
        calls += 1
        output = forward(self, *args, **kwargs)
        if calls == 3:  # the square root's derivative at zero is infinite; the loss itself is sound
            output["loss"] = output.loss + (output.loss - output.loss.detach()).abs().sqrt()
        return output

    monkeypatch.setattr(SlideCaptioner, "forward", exploding)
    recipe = tiny_recipe(tmp_path / "base", optim={"save_every": 1})
    with pytest.raises(TrainingError, match=r"step 3: the gradient's norm is nan, with 'train\d', 'train\d'"):
        train(recipe, write_cases(tmp_path), tmp_path / "out")
    kept = last_checkpoint(tmp_path / "out" / "checkpoints")
    assert kept is not None
    assert kept.name == "checkpoint-2"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(kept / "model.safetensors").values())
