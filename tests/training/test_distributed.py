"""Two processes train what one process with twice the batch trains; only the first one writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_train import assert_same_weights
from tests.training.tiny_cohort import tiny_recipe, write_cases
from wsi_mivpg.cohorts.case import write_manifest
from wsi_mivpg.training.recipe import as_yaml

ROOT = Path(__file__).resolve().parents[2]


def launch(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `wsi-mivpg` in so many processes, as torchrun does."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    program = ["-m", "wsi_mivpg.cli.main"]
    command = [sys.executable, *(torchrun if processes > 1 else []), *program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""}  # gloo, on processors
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest of eight training and three validation cases, and a recipe with and without dropout."""
    folder = tmp_path_factory.mktemp("distributed")
    write_manifest(folder / "cases.jsonl", write_cases(folder / "bags", train=8, val=3))
    sizes = tiny_recipe(folder / "base").model.mivpg.model_dump()
    recipe = tiny_recipe(
        folder / "base",
        data={"manifest": str(folder / "cases.jsonl"), "max_instances": 5},
        model={"mivpg": {**sizes, "hidden_dropout_prob": 0.0}},
        alignment={"steps": 4, "batch_size": 2, "instance_dropout": 0.2},
        optim={"steps": 6, "batch_size": 2, "gradient_accumulation": 2, "save_every": 3, "instance_dropout": 0.3},
        selection={"metric": "rouge_l", "every": 3},
    )
    (folder / "recipe.yaml").write_text(as_yaml(recipe))
    return folder


def _trained(place: Path, processes: int, out: Path, *overrides: str) -> dict:
    from safetensors.torch import load_file

    data = ("--data", place / "data")
    done = launch(processes, "train", place / "recipe.yaml", *overrides, "--out", out, *data, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # the first process alone says it
    return {**result, "weights": load_file(Path(result["model"]) / "model.safetensors")}


def test_two_processes_train_the_same_weights_as_one_with_twice_the_batch(place: Path, tmp_path: Path) -> None:
    prepared = launch(1, "train", place / "recipe.yaml", "--out", tmp_path, "--data", place / "data", "--prepare-only")
    assert prepared.returncode == 0, prepared.stderr
    two = _trained(place, 2, tmp_path / "two")
    one = _trained(place, 1, tmp_path / "one", "optim.batch_size=4", "alignment.batch_size=4")
    # Adam turns a rounding error of a gradient near zero into one of a step, which is 5e-3 here.
    assert_same_weights(one["weights"], two["weights"], 1e-4)
    assert one["final_loss"] == pytest.approx(two["final_loss"], rel=1e-4)
    assert one["best_step"] == two["best_step"]
    logs = [
        [json.loads(line) for line in (tmp_path / name / "training_log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    for first, second in zip(*logs, strict=True):
        for name in first.keys() & {"loss", "eval_loss", "eval_rouge_l"}:
            assert first[name] == pytest.approx(second[name], rel=1e-4), (name, first["step"])
    samples = [(tmp_path / name / "samples.jsonl").read_text() for name in ("one", "two")]
    assert samples[0] == samples[1]


def test_slides_are_not_extracted_by_several_processes_at_a_time(place: Path, tmp_path: Path) -> None:
    refused = launch(2, "train", place / "recipe.yaml", "--out", tmp_path / "out", "--data", tmp_path / "data")
    assert refused.returncode != 0
    assert "--prepare-only" in refused.stderr
