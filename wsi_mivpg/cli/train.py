"""``wsi-mivpg train``: from a recipe to a model: read or compose its cases, extract their slides, train."""

import os
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import Inputs, extract_all, write_failures
from wsi_mivpg.errors import CohortError, RecipeError

if TYPE_CHECKING:
    from wsi_mivpg.cohorts.case import Case
    from wsi_mivpg.cohorts.virtual import VirtualCohort
    from wsi_mivpg.training.recipe import Recipe

EXAMPLES = (
    "Examples: wsi-mivpg train pipelines/recipes/cohort.yaml data.manifest=cases.csv --out out/model · "
    "wsi-mivpg train pipelines/recipes/demo.yaml optim.steps=200 seed=3 --out out/short · "
    "torchrun --nproc_per_node 4 -m wsi_mivpg.cli.main train RECIPE --out OUT"
)


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML recipe.")],
    out: Annotated[Path, typer.Option(help="Folder for the model, its checkpoints and its log.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the recipe's.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder for slides, bags and manifests; what is there is kept.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where tiles are encoded; training itself takes a GPU where there is one.")
    ] = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read bags beside the training one.")] = 0,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Make slides and bags, and stop: before torchrun, for example.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of resuming.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Start anew where another recipe or other cases were trained.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the recipe's slides and bags, then train the model; stopped runs go on where they were."""
    from wsi_mivpg.training.recipe import load_recipe

    settings = load_recipe(recipe, overrides or ())
    folder = data or out / "data"
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    found = Inputs()
    if processes > 1:
        cases = _prepared_cases(settings, recipe, folder)
    else:
        console.writable_folder(out)
        console.writable_folder(folder, "choose another --data")
        cases, found = _cases_with_bags(settings, recipe, folder, device)
        write_failures(folder, found)
    if prepare_only:
        bags = sum(len(case.bag_paths) for case in cases)
        payload = {"cases": len(cases), "bags": bags, "failures": found.failures}
        console.result(payload, f"{folder}: {len(cases)} cases, {bags} bags", as_json=as_json)
        return console.finish(len(cases), len(found.failures))

    from wsi_mivpg.training import train as train_model

    console.quieten_transformers()
    say = console.note if rank == 0 else _nothing
    bar = console.progress("train") if rank == 0 else nullcontext(_nothing)
    say(f"train {settings.name}: {len(cases)} cases, log in {out}")
    with console.stop_on_sigterm(), bar as advance, redirect_stdout(sys.stderr):
        done = train_model(
            settings, cases, out, resume=not fresh, replace=replace, workers=workers, on_step=advance, note=say
        )
    if processes > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()
    if rank:
        return None
    payload = {
        "model": str(done.model_dir),
        "steps": done.steps,
        "best_step": done.best_step,
        "seconds": round(done.seconds, 1),
        "final_loss": done.final_loss,
        "cases": len(cases),
        "failures": found.failures,
    }
    best = "" if done.best_step is None else f", best at {done.best_step}"
    text = f"{done.model_dir}: {done.steps} steps{best}, {done.seconds:.0f} s, last loss {done.final_loss:.4f}"
    console.result(payload, text, as_json=as_json)
    console.finish(1, len(found.failures))


def _nothing(*_: object) -> None:
    """What all processes but the first say."""


def _cohorts(settings: "Recipe", path: Path) -> "list[VirtualCohort]":
    from pydantic import ValidationError

    from wsi_mivpg.cohorts.virtual import VirtualCohort
    from wsi_mivpg.training.recipe import explain

    if not settings.data.cohorts and not settings.data.manifest:
        raise RecipeError(f"{path} names no cases; add data.manifest (a file) or data.cohorts (virtual ones)")
    try:
        return [VirtualCohort.model_validate(cohort) for cohort in settings.data.cohorts]
    except ValidationError as problem:
        raise RecipeError(f"{path}: data.cohorts: {explain(problem, VirtualCohort)}") from problem


def _read(settings: "Recipe") -> "dict[str, list[Case]]":
    """Read the recipe's manifests, by the name under which they are kept with their bags."""
    from wsi_mivpg.cohorts.case import read_manifest

    return {path.stem: read_manifest(path) for path in settings.data.manifest}


def _prepared_cases(settings: "Recipe", path: Path, folder: Path) -> "list[Case]":
    """Read the cases of a distributed training, whose bags must all be there: nothing is made by several processes.

    Raises:
        CohortError: a bag is missing.
    """
    from wsi_mivpg.cohorts.case import read_manifest

    cases = []
    for name in [*(cohort.name for cohort in _cohorts(settings, path)), *_read(settings)]:
        kept = folder / f"{name}.jsonl"
        if not kept.is_file():
            raise CohortError(
                f"{kept} is not there: before training with several processes, make slides and bags with one: "
                f"`wsi-mivpg train {path} … --prepare-only`"
            )
        cases += read_manifest(kept)
    return cases


def _cases_with_bags(settings: "Recipe", path: Path, folder: Path, device: str) -> "tuple[list[Case], Inputs]":
    """Compose and read all cases, extract the slides of those without bags, and keep each manifest with its bags."""
    from wsi_mivpg.cohorts.case import write_manifest

    cohorts, read = _cohorts(settings, path), _read(settings)
    # All slides are composed first: workers and the encoder would share the cores.
    cases_of = {cohort.name: _composed(cohort, folder) for cohort in cohorts} | read
    if len(cases_of) < len(cohorts) + len(settings.data.manifest):
        raise RecipeError(f"{path}: two cohorts or manifests have the same name; rename one")
    from wsi_mivpg.extraction import slide_input

    bare = [case for cases in cases_of.values() for case in cases if not case.bag_paths]
    found = Inputs(slides=[slide_input(slide) for case in bare for slide in case.slide_paths])
    bags: dict[str, Path] = {}
    for made in extract_all(found, folder / "bags", encoder=settings.data.encoder, device=device):
        if made.n_tiles:
            bags[made.slide_id] = made.bag_path
        else:
            found.fail(made.slide_id, f"slide {made.slide_id}: no tissue found; its case is left out")
    complete: list[Case] = []
    for name, cases in cases_of.items():
        with_bags = [
            case if case.bag_paths else case.with_bags([bags[slide.stem] for slide in case.slide_paths])
            for case in cases
            if case.bag_paths or not case.slide_paths or all(slide.stem in bags for slide in case.slide_paths)
        ]
        write_manifest(folder / f"{name}.jsonl", with_bags)
        complete += with_bags
    return complete, found


def _composed(cohort: "VirtualCohort", folder: Path) -> "list[Case]":
    from wsi_mivpg.cohorts.case import SPLITS
    from wsi_mivpg.cohorts.virtual import compose_cohort

    total = sum(cohort.count(split) for split in SPLITS)
    done = 0
    with console.progress(f"compose {cohort.name}") as advance:

        def on_case(case_id: str) -> None:
            nonlocal done
            done += 1
            advance(done, total, case_id)

        return compose_cohort(cohort, folder, on_case=on_case)
