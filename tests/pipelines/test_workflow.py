"""The workflow on this machine, from a table of twelve rendered slides to the page over all reports."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipelines.small_cohort import ENCODER, write_cohort, write_recipe, write_slides
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.cohorts.case import Case, read_manifest
from wsi_mivpg.reports import read_jsonl

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "pipelines" / "workflow"
BIN = Path(sys.executable).parent
CONFIG = {
    "cohort": "cohort.csv",
    "most_left_out": 0.5,
    "extract": {"encoder": ENCODER, "slides_per_job": 5, "threads": 1, "mem_mb": 2000},
    "train": {"recipe": "recipe.yaml", "threads": 1, "mem_mb": 2000},
    "report": {"cases_per_job": 10, "threads": 1, "mem_mb": 2000},
    "evaluate": {"options": ["--resamples", 100]},
}

pytestmark = pytest.mark.skipif(not (BIN / "snakemake").is_file(), reason="snakemake is not installed")


def snakemake(folder: Path, *arguments: object, config: dict | None = None) -> subprocess.CompletedProcess[str]:
    """Run the workflow in a folder on two cores, with the profile of one machine."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config or CONFIG))
    command = [BIN / "snakemake", "-s", WORKFLOW / "Snakefile", "--directory", folder]
    command += ["--configfile", folder / "config.yaml", "--workflow-profile", WORKFLOW / "profiles" / "local"]
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    words = [*map(str, [*command, "--cores", 2, *arguments])]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def jobs(run: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the rules of a run's jobs, in order."""
    kinds = ("rule ", "localrule ", "checkpoint ", "localcheckpoint ")
    lines = [line.rstrip(":") for line in (run.stdout + run.stderr).splitlines() if line.startswith(kinds)]
    return [line.split()[1] for line in lines]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Fifteen rendered slides; the last one of each split is for later."""
    return write_slides(tmp_path_factory.mktemp("rendered"), train=8, val=3, test=4)


@pytest.fixture(scope="module")
def done(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workflow over twelve slides, one of which is no slide at all."""
    folder = tmp_path_factory.mktemp("workflow")
    now = [case for case in cases if not case.case_id.endswith(("train-0007", "val-0002", "test-0003"))]
    write_cohort(folder / "cohort.csv", now)
    with (folder / "cohort.csv").open("a") as table:
        table.write("broken,broken.tiff,broken,,benign,train\n")
    (folder / "broken.tiff").write_bytes(b"no slide")
    write_recipe(folder)
    run = snakemake(folder)
    assert run.returncode == 0, run.stderr
    return folder


def test_twelve_slides_become_reports_an_evaluation_and_a_page(done: Path) -> None:
    bags = sorted(done.glob("bags/*/*.h5"))
    assert [path.parent.name for path in bags].count("0001") == 5
    assert len(bags) == 12
    assert all(FeatureBag.open(path).encoder == ENCODER for path in bags)
    collected = read_manifest(done / "cohort.jsonl")
    assert len(collected) == 12
    assert all(path.is_file() for case in collected for path in case.bag_paths)
    reports = read_jsonl(done / "reports.jsonl")
    assert sorted(report.case_id for report in reports) == [f"small-test-000{i}" for i in range(3)]
    assert json.loads((done / "evaluation" / "evaluation.json").read_text())["n_cases"] == 3
    page = (done / "index.html").read_text()
    for report in reports:
        link = f"reports/0001/{report.case_id}.html"
        assert f'href="{link}"' in page
        assert (done / link).is_file()


def test_a_slide_that_fails_is_named_and_stops_nothing(done: Path) -> None:
    page = (done / "index.html").read_text()
    assert "12 extracted, 1 failed" in page
    with (done / "cohort.left-out.csv").open() as stream:
        left_out = list(csv.DictReader(stream))
    assert [row["case_id"] for row in left_out] == ["broken"]
    assert "broken.tiff" in left_out[0]["reason"]
    assert "Cases left out" in page


def test_the_same_command_again_has_nothing_to_do(done: Path) -> None:
    run = snakemake(done, "-n")
    assert run.returncode == 0, run.stderr
    assert jobs(run) == []


def test_new_slides_are_extracted_and_no_others(done: Path, cases: list[Case]) -> None:
    folder = done.with_name("more")  # as deep as the other: lists have relative paths
    shutil.copytree(done, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("bags/*/*.h5")}
    lists = {path: path.stat().st_mtime_ns for path in folder.glob("shards/*.csv")}
    write_cohort(folder / "cohort.csv", cases)
    run = snakemake(folder, "--until", "collect")
    assert run.returncode == 0, run.stderr
    # One list is new; the one that had the broken slide, which is no more, is shorter.
    assert sorted(jobs(run)) == ["collect", "extract", "extract", "shards"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(folder.glob("bags/*/*.h5"))) == 15
    assert [path.name for path in lists if path.stat().st_mtime_ns != lists[path]] == ["0003.csv"]
    assert len(read_manifest(folder / "cohort.jsonl")) == 15


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extract": {"slides_per_jobb": 3}}, "slides_per_jobb"),
        ({"extract": {"slides_per_job": 0}}, "less than the minimum"),
        ({"split": {"train": -3}}, "-3 is less than the minimum"),
        ({"model": "demo"}, "needs either `train` or `model`, and has both"),
        ({}, "train.recipe: there is no "),
    ],
)
def test_a_wrong_configuration_is_named_before_anything_runs(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    run = snakemake(tmp_path, "-n", config={**CONFIG, **change})
    assert run.returncode != 0
    assert said in run.stdout + run.stderr


def test_with_a_model_that_is_given_new_slides_leave_earlier_reports_and_a_new_model_makes_all(
    done: Path, cases: list[Case]
) -> None:
    folder = done.with_name("given")
    shutil.copytree(done, folder)
    (folder / "model").rename(folder / "trained")
    config = {name: value for name, value in CONFIG.items() if name != "train"} | {"model": "trained/model"}
    first = snakemake(folder, config=config)  # `--until report` would end at the first checkpoint
    assert first.returncode == 0, first.stderr
    pages = {path: path.stat().st_mtime_ns for path in folder.glob("reports/0001/*.html")}
    assert len(pages) == 4  # three cases and their index
    write_cohort(folder / "cohort.csv", cases)
    more = snakemake(folder, config=config)
    assert more.returncode == 0, more.stderr
    assert jobs(more).count("report") == 1
    assert [report.case_id for report in read_jsonl(folder / "reports" / "0002" / "reports.jsonl")] == [
        "small-test-0003"
    ]
    assert {path: path.stat().st_mtime_ns for path in pages} == pages
    with (folder / "trained" / "model" / "model.safetensors").open("ab") as weights:
        weights.write(b" ")  # Snakemake looks at the content of small files, not at their time alone
    planned = snakemake(folder, "-n", config=config)
    assert jobs(planned).count("report") == 2, planned.stderr


@pytest.mark.parametrize("name", ["local", "slurm", "kubernetes", "google-batch", "aws-batch"])
def test_every_profile_tries_again_and_says_nothing_that_snakemake_does_not_know(name: str) -> None:
    profile = yaml.safe_load((WORKFLOW / "profiles" / name / "config.yaml").read_text())
    assert profile["rerun-incomplete"]
    assert profile["keep-going"]
    assert profile["retries"] >= 1
    help_text = subprocess.run([BIN / "snakemake", "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--([a-z][a-z-]+)", help_text))
    # Those of an executor that is not installed here cannot be held against anything.
    assert [key for key in profile if key not in known and not key.startswith(f"{profile['executor']}-")] == []


def test_steps_run_in_the_images_that_the_configuration_names(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for Apptainer that notes the image and runs the command beside it."""
    folder = done.with_name("contained")
    shutil.copytree(done, folder)
    (folder / "bin").mkdir()
    stand_in = folder / "bin" / "singularity"  # as Snakemake calls it
    stand_in.write_text(
        "#!/bin/bash\n"
        'if [[ $1 == --version ]]; then echo "apptainer version 1.4.0"; exit; fi\n'
        "until [[ $1 == *.sif ]]; do shift; done\n"
        f'echo "$(basename "$1") ${{*:2}}" >> {folder / "contained.log"}\n'
        'exec "${@:2}"\n'
    )
    stand_in.chmod(0o755)
    images = {name: str(folder / f"{name}.sif") for name in ("cpu", "cuda")}
    for image in images.values():
        Path(image).touch()
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    config = CONFIG | {"containers": images, "extract": {**CONFIG["extract"], "gpus": 1}}
    apart = ("--software-deployment-method", "apptainer", "--resources", "gpu=1")
    run = snakemake(folder, *apart, "--forcerun", "shards", "extract", "--until", "collect", config=config)
    assert run.returncode == 0, run.stderr
    ran_in = re.findall(
        r"^(cpu|cuda)\.sif .*?wsi-mivpg (shards|extract|cohorts)", (folder / "contained.log").read_text(), re.M
    )
    assert set(ran_in) == {("cpu", "shards"), ("cuda", "extract"), ("cpu", "cohorts")}


def test_a_cohort_without_splits_is_divided_and_one_with_a_model_is_not_trained_on(done: Path) -> None:
    # What the first step is asked differs too; what would follow it is not known until it has run.
    planned = ("-n", "--rerun-triggers", "mtime", "input")
    divided = snakemake(done, *planned, config=CONFIG | {"split": {"seed": 1}})
    assert "split" in jobs(divided), divided.stderr
    with_model = {name: value for name, value in CONFIG.items() if name != "train"} | {"model": "demo"}
    reported = snakemake(done, *planned, "--forcerun", "report", config=with_model)
    assert "report" in jobs(reported), reported.stderr
    assert "train" not in jobs(reported)


def test_splits_that_are_missing_are_named_before_the_extraction(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("slide_id,path,case_id,split\na,a.tiff,a,train\n")
    write_recipe(tmp_path)
    run = snakemake(tmp_path)
    assert run.returncode != 0
    assert "no case of split 'test'" in run.stdout + run.stderr
    assert set(jobs(run)) == {"shards"}
