"""``wsi-mivpg report``: slides, bags or a manifest of cases to written reports, one page per case.

Slides become bags, with the encoder that the model names, while cases whose bags are there are written about. The run
itself is `case_run`.
"""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import (
    FastDecodeOption,
    MppCsvOption,
    MppOption,
    ReaderOption,
    check_splits,
    slide_settings,
    write_failures,
)
from wsi_mivpg.errors import ModelError

if TYPE_CHECKING:
    from wsi_mivpg.captioner import CaptionerConfig, SlideCaptioner
    from wsi_mivpg.cli.case_inputs import CaseInput
    from wsi_mivpg.cli.case_run import Tally
    from wsi_mivpg.cli.case_texts import Asked
    from wsi_mivpg.cli.inputs import Inputs
    from wsi_mivpg.extraction import SlideSettings
    from wsi_mivpg.reports import Records

EXAMPLES = (
    "Examples: wsi-mivpg report slide.svs --out out/report · "
    "wsi-mivpg report slides/ --model my_model --out out/report · "
    "wsi-mivpg report cases.jsonl --split test --model my_model --out out/report · "
    "wsi-mivpg report bags/ --out out/report --json"
)
DEMO = "demo"


def report(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Slides, bags (.h5), folders of them, addresses, or a manifest of cases (.jsonl, .csv, .parquet).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for pages, reports.jsonl and bags.")],
    model: Annotated[
        str, typer.Option(help="'demo' (in the package), a folder that train wrote, or an id on the hub.")
    ] = DEMO,
    split: Annotated[str | None, typer.Option(help="Of a manifest, the cases of this split only.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What to ask in place of the model's own prompt.")] = None,
    sections: Annotated[
        str | None, typer.Option(help="Headers to ask for after the prompt, as 'Findings;Final diagnosis'.")
    ] = None,
    fields: Annotated[
        str | None,
        typer.Option(help="Fill fields in place of a free text: biopsy, resection, virtual-biopsy, or a JSON Schema."),
    ] = None,
    template: Annotated[Path | None, typer.Option(help="Jinja file that makes a text of the --fields.")] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Draw so many more texts of each case, and show the one that agrees most.")
    ] = 0,
    mpp: MppOption = None,
    mpp_csv: MppCsvOption = None,
    reader: ReaderOption = None,
    fast_decode: FastDecodeOption = False,
    tissue: Annotated[
        str | None,
        typer.Option(
            help="otsu, hsv, none, FILE.geojson, a folder of <slide>.geojson, or an installed segmenter; default the "
            "model's."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Cases written about at once.")] = 16,
    seed: Annotated[int, typer.Option(help="For models that write by sampling.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Go on with bags unlike those of the training; the report says so.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make bags and reports again that are there.")] = False,
    evidence: Annotated[
        bool, typer.Option("--evidence/--no-evidence", help="Find and test what supports each sentence.")
    ] = True,
    trust: Annotated[
        bool, typer.Option("--trust/--no-trust", help="Put each report before the model's trust gates.")
    ] = True,
    pages: Annotated[bool, typer.Option("--pages/--no-pages", help="Draw a page of each case.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Write a report for each case: one HTML page and JSON file, a line in reports.jsonl, reports.csv and index.html.

    Stop it at any time; the same command goes on. A case that is there with the same model, bags and settings is kept.
    """
    check_splits(split)
    if template is not None and fields is None:
        raise typer.BadParameter("needs --fields, whose values it tells", param_hint="--template")
    if fields is not None and (samples or sections is not None):
        raise typer.BadParameter("goes without --samples and --sections", param_hint="--fields")
    console.writable_folder(out)
    settings = slide_settings(mpp, mpp_csv, reader, fast_decode, tissue or "otsu")
    from wsi_mivpg.cli.case_inputs import find_cases
    from wsi_mivpg.cli.case_texts import Asked

    cases, found = find_cases(inputs, out / "bags", split)
    if not cases:
        write_failures(out, found)
        console.finish(0, len(found.failures))
        return
    from wsi_mivpg.evidence import DEFAULT_METHOD
    from wsi_mivpg.prompting import load_schema, section_names, sections_prompt
    from wsi_mivpg.reports import held_records
    from wsi_mivpg.trust import load_gates

    schema = None if fields is None else load_schema(fields, template)
    captioner = load_model(model, device)
    names = () if sections is None else section_names(sections)
    if sections is not None:
        prompt = sections_prompt(prompt or captioner.config.prompt, names)
    asked = Asked(
        model,
        out,
        _as_trained(settings, captioner.config, keep_segmenter=tissue is not None),
        DEFAULT_METHOD if evidence else None,
        pages,
        prompt,
        seed,
        batch_size,
        force,
        names,
        schema,
        samples,
        trust,
        load_gates(model) if trust else None,
    )
    with held_records(out) as records:
        tally = _run(captioner, cases, asked, device, records, found, overwrite=overwrite)
        done = {*tally.written, *tally.kept}
        if done:
            _print(records, done, out, as_json)
    console.finish(len(done), len(found.failures))


def _run(
    captioner: "SlideCaptioner",
    cases: "list[CaseInput]",
    asked: "Asked",
    device: str,
    records: "Records",
    found: "Inputs",
    *,
    overwrite: bool,
) -> "Tally":
    """Report on all cases; the overview and failures.csv are written also where the run is stopped."""
    from wsi_mivpg.cli.case_extraction import extracting
    from wsi_mivpg.cli.case_run import report_on
    from wsi_mivpg.reports import write_overview

    config = captioner.config
    making = extracting(
        cases,
        asked.out / "bags",
        encoder=config.encoder or "efficientnet-lite0",
        tile_px=config.tile_px,
        tile_mpp=config.target_mpp,
        device=device,
        settings=asked.slide_settings,
        overwrite=overwrite,
    )
    try:
        with (
            console.stop_on_sigterm(),
            console.progress("report") as advance,
            captioner.asked(asked.prompt),
            making as extraction,
        ):
            tally = report_on(captioner, cases, extraction, asked, records, found.fail, advance, again=overwrite)
    finally:
        write_failures(asked.out, found)
        if len(records):
            write_overview(asked.out, records, found.failures)
    if extraction is not None and extraction.summary is not None:
        for part in extraction.summary.throughput:
            if part.n_tiles:
                console.note(part.described)
    console.note(tally.described)
    return tally


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


def _as_trained(settings: "SlideSettings", config: "CaptionerConfig", *, keep_segmenter: bool) -> "SlideSettings":
    """Return settings that find tissue as the model's bags have it, where that can be done again."""
    if config.tissue is None:
        return settings
    from wsi_mivpg.tissue import method_named

    method = None if keep_segmenter else method_named(config.tissue["segmenter"])
    return replace(settings, tissue=method or settings.tissue, min_tissue=config.tissue["min_tissue"])


def _print(records: "Records", done: Collection[str], out: Path, as_json: bool) -> None:
    """Print the reports of this run's cases, one after the other: all of them may not fit into memory."""
    from wsi_mivpg.reports import iterate_jsonl

    reports = (one for one in iterate_jsonl(records.path) if one.case_id in done)
    if not as_json:
        for one in reports:
            print(f"{one.case_id}: {one.shown_text}")
        print(f"\n{out / 'index.html'}")
        return
    for number, one in enumerate(reports):
        text = json.dumps(one.model_dump(mode="json"), indent=2, ensure_ascii=False)
        print("," if number else "[", text, sep="\n")
    print("]")
