"""``wsi-mivpg report``: slides or bags to written reports, one page per case.

Slides become bags first, with the encoder that the model names; then all cases are read by the model. What is
drawn beside the text comes from `case_files`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import (
    FastDecodeOption,
    Inputs,
    MppCsvOption,
    MppOption,
    ReaderOption,
    TissueOption,
    collect,
    extract_all,
    slide_settings,
    write_failures,
)
from wsi_mivpg.errors import ModelError, WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.captioner import SlideCaptioner
    from wsi_mivpg.cli.case_files import CaseInput, WrittenCase
    from wsi_mivpg.extraction import SlideSettings

EXAMPLES = (
    "Examples: wsi-mivpg report slide.svs --out out/report · "
    "wsi-mivpg report slides/ --model my_model --out out/report · "
    "wsi-mivpg report bags/ --out out/report --json"
)
DEMO = "demo"


def report(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Slides, feature bags (.h5), folders of them, a CSV, or addresses."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for pages, reports.jsonl and bags.")],
    model: Annotated[
        str, typer.Option(help="'demo' (in the package), a folder that train wrote, or an id on the hub.")
    ] = DEMO,
    mpp: MppOption = None,
    mpp_csv: MppCsvOption = None,
    reader: ReaderOption = None,
    fast_decode: FastDecodeOption = False,
    tissue: TissueOption = "otsu",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make bags again that are there.")] = False,
    evidence: Annotated[
        bool, typer.Option("--evidence/--no-evidence", help="Find and test what supports each sentence.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Write a report for each slide or bag: one HTML page and JSON file per case, reports.jsonl, and index.html."""
    console.writable_folder(out)
    settings = slide_settings(mpp, mpp_csv, reader, fast_decode, tissue)
    found = collect(inputs, bags_too=True)
    written: list[WrittenCase] = []
    if len(found):
        captioner = load_model(model, device)
        cases = _of_bags(found) + _extracted(found, captioner, out, device, settings, overwrite)
        written = _write_cases(captioner, model, cases, out, settings, evidence, found)
    write_failures(out, found)
    if written:
        from wsi_mivpg.cli.case_files import write_overview

        write_overview(out, written, found.failures)
    reports = [case.report for case in written]
    text = "\n".join(f"{one.case_id}: {one.text}" for one in reports)
    if written:
        payload = [one.model_dump(mode="json") for one in reports]
        console.result(payload, f"{text}\n\n{out / 'index.html'}", as_json=as_json)
    console.finish(len(written), len(found.failures))


def load_model(model: str, device: str) -> "SlideCaptioner":
    """Load the demonstration model, one from a folder or one from the hub onto a device.

    Raises:
        ModelError: there is no such model, or no such device.
    """
    console.note(f"load model {model}")
    import torch

    from wsi_mivpg.captioner import SlideCaptioner

    console.quieten_transformers()
    captioner: SlideCaptioner = SlideCaptioner.from_pretrained(model)
    try:
        torch.nn.Module.to(captioner, device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"cannot run the model on device {device!r}: {error}; try --device cpu") from error
    return captioner


def _of_bags(found: Inputs) -> "list[CaseInput]":
    """Return each bag as a case; one that is no bag is noted."""
    from wsi_mivpg.bags import FeatureBag
    from wsi_mivpg.cli.case_files import CaseInput

    cases = []
    for path in found.bags:
        try:
            cases.append(CaseInput(FeatureBag.open(path).slide_id, [path]))
        except WsiMivpgError as problem:
            found.fail(str(path), problem)
    return cases


def _extracted(
    found: Inputs, captioner: "SlideCaptioner", out: Path, device: str, settings: "SlideSettings", overwrite: bool
) -> "list[CaseInput]":
    """Make the bags of all slides with the encoder that the model was trained on."""
    if not found.slides:
        return []
    from wsi_mivpg.cli.case_files import CaseInput

    slides = {slide.slide_id: slide for slide in found.slides}
    results = extract_all(
        found,
        out / "bags",
        encoder=captioner.config.encoder or "efficientnet-lite0",
        device=device,
        settings=settings,
        overwrite=overwrite,
    )
    return [
        CaseInput(made.slide_id, [made.bag_path], {made.slide_id: slides[made.slide_id]}, made.seconds)
        for made in results
    ]


def _write_cases(
    captioner: "SlideCaptioner",
    model: str,
    cases: "list[CaseInput]",
    out: Path,
    settings: "SlideSettings",
    evidence: bool,
    found: Inputs,
) -> "list[WrittenCase]":
    """Read each case by the model and write its page; a case that fails is noted and the others go on."""
    from wsi_mivpg.cli.case_files import describe_case
    from wsi_mivpg.evidence import DEFAULT_METHOD

    method = DEFAULT_METHOD if evidence else None
    written = []
    with console.progress("report") as advance:
        for number, case in enumerate(cases, 1):
            try:
                written.append(describe_case(captioner, model, case, out, settings, method))
            except WsiMivpgError as problem:
                found.fail(case.shown, problem)
            advance(number, len(cases), case.case_id)
    return written
