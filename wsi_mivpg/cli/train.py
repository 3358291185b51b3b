"""``wsi-mivpg train``: from a recipe to a model: compose the cohorts' slides, extract them, train."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import Inputs, extract_all, write_failures
from wsi_mivpg.errors import RecipeError

if TYPE_CHECKING:
    from wsi_mivpg.cohorts.case import Case
    from wsi_mivpg.cohorts.virtual import VirtualCohort
    from wsi_mivpg.training.recipe import Recipe

EXAMPLES = (
    "Examples: wsi-mivpg train pipelines/recipes/demo.yaml --out out/model · "
    "wsi-mivpg train pipelines/recipes/demo.yaml optim.steps=200 seed=3 --out out/short"
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of resuming.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the recipe's slides and bags, then train the model; stopped runs go on where they were."""
    from wsi_mivpg.training.recipe import load_recipe

    settings = load_recipe(recipe, overrides or ())
    cohorts = _cohorts(settings, recipe)
    console.writable_folder(out)
    folder = console.writable_folder(data or out / "data")
    cases, found = _cases_with_bags(cohorts, folder, settings.encoder, device)
    write_failures(folder, found)

    from wsi_mivpg.training import train as train_model

    console.quieten_transformers()

    console.note(f"train {settings.name}: {settings.optim.steps} steps, log in {out}")
    with redirect_stdout(sys.stderr):  # the Trainer prints its log; stdout is for the result
        done = train_model(settings, cases, out, resume=not fresh)
    payload = {
        "model": str(done.model_dir),
        "steps": done.steps,
        "seconds": round(done.seconds, 1),
        "final_loss": done.final_loss,
        "cases": len(cases),
        "failures": found.failures,
    }
    text = f"{done.model_dir}: {done.steps} steps, {done.seconds:.0f} s, last loss {done.final_loss:.4f}"
    console.result(payload, text, as_json=as_json)
    console.finish(1, len(found.failures))


def _cohorts(settings: "Recipe", path: Path) -> "list[VirtualCohort]":
    from pydantic import ValidationError

    from wsi_mivpg.cohorts.virtual import VirtualCohort

    if not settings.cohorts:
        raise RecipeError(f"{path} names no cohorts, so there is nothing to train on; add a `cohorts:` list")
    try:
        return [VirtualCohort.model_validate(cohort) for cohort in settings.cohorts]
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: cohorts: {where}: {first['msg']} (given: {first['input']!r})") from problem


def _cases_with_bags(
    cohorts: "list[VirtualCohort]", folder: Path, encoder: str, device: str
) -> "tuple[list[Case], Inputs]":
    """Compose and extract all splits, and rewrite each manifest with its bags."""
    from wsi_mivpg.cohorts.case import write_manifest

    # All slides are composed first: workers and the encoder would share the cores.
    composed = {cohort.name: _composed(cohort, folder) for cohort in cohorts}
    from wsi_mivpg.extraction import slide_input

    slides = [slide_input(slide) for cases in composed.values() for case in cases for slide in case.slide_paths]
    found = Inputs(slides=slides)
    bags: dict[str, Path] = {}
    for made in extract_all(found, folder / "bags", encoder=encoder, device=device):
        if made.n_tiles:
            bags[made.slide_id] = made.bag_path
        else:
            found.fail(made.slide_id, f"slide {made.slide_id}: no tissue found; its case is left out")
    complete: list[Case] = []
    for name, cases in composed.items():
        with_bags = [
            case.with_bags([bags[slide.stem] for slide in case.slide_paths])
            for case in cases
            if all(slide.stem in bags for slide in case.slide_paths)
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
