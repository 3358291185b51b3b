"""``wsi-mivpg cohort``: make cohorts of slides."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_mivpg.cli import console

EXAMPLES = (
    "Examples: wsi-mivpg cohort virtual --out out/sample --cases 1 --seed 7 · "
    "wsi-mivpg cohort virtual --out out/virtual --cases 100 --split train"
)

app = typer.Typer(help="Make cohorts of slides.", no_args_is_help=True)


@app.command("virtual", epilog=EXAMPLES)
def virtual(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    cases: Annotated[int, typer.Option(min=1, help="Number of cases, one slide each.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same slides.")] = 0,
    split: Annotated[str, typer.Option(help="train, val or test; each has its own slides.")] = "test",
    name: Annotated[str, typer.Option(help="Name of the cohort; case ids begin with it.")] = "virtual",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Render virtual biopsies as pyramidal TIFF slides, each with its truth and reports beside it."""
    if split not in ("train", "val", "test"):
        raise typer.BadParameter(f"{split!r} is not train, val or test", param_hint="--split")
    console.writable_folder(out)
    from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_cohort

    cohort = VirtualCohort.model_validate({"name": name, "seed": seed, split: cases})
    done = 0
    with console.progress("render") as advance:

        def on_case(case_id: str) -> None:
            nonlocal done
            done += 1
            advance(done, cases, case_id)

        made = compose_cohort(cohort, out, splits=(split,), on_case=on_case)
    data = [
        {
            "case_id": case.case_id,
            "slides": [str(path) for path in case.slide_paths],
            "reports": list(case.reports),
        }
        for case in made
    ]
    text = "\n".join(f"{slide}  {case['reports'][0]}" for case in data for slide in case["slides"])
    console.result(data, text, as_json=as_json)
