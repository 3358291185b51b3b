"""``wsi-mivpg explain``: which tiles support each sentence of a written report, tested, as pictures, GeoJSON and HDF5.

It takes the JSON that ``report`` wrote beside each page; the work on one case is `explain_case`'s.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import MppOption, ReaderOption, TissueOption, slide_settings
from wsi_mivpg.errors import WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.captioner import SlideCaptioner
    from wsi_mivpg.extraction import SlideInput

EXAMPLES = (
    "Examples: wsi-mivpg explain out/report/case.json · "
    "wsi-mivpg explain out/report/*.json --method all --sanity · "
    "wsi-mivpg explain out/report/case.json --slide /new/place/case.svs --model my_model --json"
)


class Method(StrEnum):
    """How tiles are weighed."""

    attention = "attention"
    gradient = "gradient"
    leave_out = "leave-out"
    all = "all"


def explain(
    cases: Annotated[list[Path], typer.Argument(metavar="CASE.json...", help="Reports that `wsi-mivpg report` wrote.")],
    method: Annotated[
        Method | None,
        typer.Option(
            help="How tiles are weighed; leave-out is slow. [default: what `report` shows]", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the model is now, if not where it was when it wrote the report.")
    ] = None,
    slide: Annotated[
        list[Path] | None, typer.Option(help="Where a slide is now; once for each slide that was moved.")
    ] = None,
    sanity: Annotated[
        bool,
        typer.Option("--sanity", help="Also see whether maps change with the model's weights and with the report."),
    ] = False,
    mpp: MppOption = None,
    reader: ReaderOption = None,
    tissue: TissueOption = "otsu",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Show which tiles support each sentence of a report, and whether that is true: explain/<case>/ beside the page."""
    from wsi_mivpg.cli.explain_case import Asked, explain_case, read_report
    from wsi_mivpg.evidence import DEFAULT_METHOD, METHODS

    first = DEFAULT_METHOD if method in (None, Method.all) else str(method)
    methods = [first, *(name for name in METHODS if name != first)] if method is Method.all else [first]
    settings = slide_settings(mpp, None, reader, False, tissue)
    loaded: dict[str, SlideCaptioner] = {}
    results: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    cases = list(dict.fromkeys(cases))
    with console.progress("explain") as advance:
        for number, path in enumerate(cases, 1):
            try:
                report = read_report(path)
                asked = Asked(methods, _moved(slide or [], [one.slide_id for one in report.slides]), settings, sanity)
                captioner = _loaded(model or str(report.model.get("name")), device, loaded)
                results.append(explain_case(captioner, path, report, asked))
            except WsiMivpgError as problem:
                failures[str(path)] = str(problem)
                console.error(problem)
            advance(number, len(cases), path.stem)
    if results:
        text = "\n\n".join(_as_text(result) for result in results)
        console.result({"cases": results, "failures": failures}, text, as_json=as_json)
    console.finish(len(results), len(failures))


def _loaded(model: str, device: str, loaded: "dict[str, SlideCaptioner]") -> "SlideCaptioner":
    """Load a model once for all cases that it wrote."""
    from wsi_mivpg.cli.report import load_model

    if model not in loaded:
        loaded[model] = load_model(model, device)
    return loaded[model]


def _moved(slides: list[Path], slide_ids: list[str]) -> "dict[str, SlideInput]":
    """Return the slides that were named, by id: by their file's name, or the only one for the only slide of a case."""
    from wsi_mivpg.extraction import slide_input

    given = {one.slide_id: one for one in map(slide_input, slides)}
    if len(given) == len(slide_ids) == 1:
        return {slide_ids[0]: next(iter(given.values()))}
    return {slide_id: given[slide_id] for slide_id in slide_ids if slide_id in given}


def _as_text(result: dict[str, Any]) -> str:
    headers = ["sentence", "better than random", "deletion", "insertion", "text"]
    verdict = {True: "yes", False: "no", None: "not tested"}
    rows = [
        [
            number,
            verdict[one["better_than_random"]],
            *("" if one[name] is None else f"{one[name]:+.3f}" for name in ("deletion", "insertion")),
            one["text"],
        ]
        for number, one in enumerate(result["sentences"], 1)
    ]
    lines = [f"{result['case_id']}, by {result['method']}; in nats beyond random tiles", console.table(headers, rows)]
    for method, checks in result.get("sanity", {}).items():
        for kind, ones in checks.items():
            for one in ones:
                correlations = " ".join("-" if value is None else f"{value:+.2f}" for value in one["correlations"])
                lines.append(f"sanity, {method}, other {kind} ({one['what']}): rank correlation {correlations}")
    return "\n".join([*lines, result["folder"]])
