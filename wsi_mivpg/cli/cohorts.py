"""``wsi-mivpg cohorts``: make cohorts, import and divide them, find their leaks, prepare their reports."""

from pathlib import Path
from typing import Annotated, Any

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import check_splits

VIRTUAL = (
    "Examples: wsi-mivpg cohorts virtual --out out/sample --cases 1 --seed 7 · "
    "wsi-mivpg cohorts virtual --out out/virtual --cases 100 --split train"
)
IMPORT = (
    "Examples: wsi-mivpg cohorts import csv cases.csv --out cohort.jsonl --bags bags/ · "
    "wsi-mivpg cohorts import patchgastric captions.csv --images patches_captions/ --bags bags/ --out cohort.jsonl · "
    "wsi-mivpg cohorts import histgen annotation.json --bags bags/ --without-frozen --out tcga.parquet"
)
SPLIT = (
    "Examples: wsi-mivpg cohorts split cohort.jsonl --out split.jsonl --seed 1 · "
    "wsi-mivpg cohorts split cohort.csv --out split.csv --train 0.8 --val 0.1 --test 0.1 --stratify subtype"
)
CHECK = "Examples: wsi-mivpg cohorts check split.jsonl · wsi-mivpg cohorts check train.csv test.csv --json"
PREPARE = (
    "Examples: wsi-mivpg cohorts prepare split.jsonl --out ready.jsonl --drop gross,history,ihc --diff changes.diff · "
    "wsi-mivpg cohorts prepare split.jsonl --out ready.jsonl --case sentence"
)

app = typer.Typer(
    help="Make, import, divide, check and prepare cohorts.",
    epilog="Example: wsi-mivpg cohorts check manifest.csv",
    no_args_is_help=True,
)

Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="Manifest: .csv, .parquet or .jsonl.")]
Out = Annotated[Path, typer.Option(help="Manifest to write: .csv, .parquet or .jsonl.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("virtual", epilog=VIRTUAL)
def virtual(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    cases: Annotated[int, typer.Option(min=1, help="Number of cases, one slide each.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same slides.")] = 0,
    split: Annotated[str, typer.Option(help="train, val or test; each has its own slides.")] = "test",
    name: Annotated[str, typer.Option(help="Name of the cohort; case ids begin with it.")] = "virtual",
    as_json: Json = False,
) -> None:
    """Render virtual biopsies as pyramidal TIFF slides, each with its truth and reports beside it."""
    check_splits(split)
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


@app.command("import", epilog=IMPORT)
def import_(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="manifest, csv, histgen, r2gen, pathtext, reg2025, histai, slidechat, llava, patchgastric, coco, abo.",
        ),
    ],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The data set's own file or folder.")],
    out: Out,
    bags: Annotated[Path | None, typer.Option(help="Folder of the slides' bags, found by name.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the slides, patches or pictures.")] = None,
    captions: Annotated[Path | None, typer.Option(help="abo: CSV of product ids and captions (Cap3D).")] = None,
    no_frozen: Annotated[bool, typer.Option("--without-frozen", help="Leave TCGA's frozen sections out.")] = False,
    as_json: Json = False,
) -> None:
    """Write a manifest from a data set's own files; say and count what has no slide, no bag or no report."""
    from wsi_mivpg.cohorts.case import write_manifest
    from wsi_mivpg.cohorts.importers import FORMATS, import_cohort
    from wsi_mivpg.cohorts.tcga import without_frozen

    if form not in FORMATS:
        raise typer.BadParameter(f"{form!r} is none of {', '.join(FORMATS)}", param_hint="FORMAT")
    made = import_cohort(form, source, bags=bags, images=images, captions=captions)
    cases = without_frozen(made.cases) if no_frozen else list(made.cases)
    left_out = dict(made.left_out)
    if len(cases) < len(made.cases):
        left_out["cases of frozen sections alone"] = len(made.cases) - len(cases)
    write_manifest(out, cases)
    data = {
        "manifest": str(out),
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "slides": sum(len(case.slide_paths) for case in cases),
        "images": sum(len(case.image_paths) for case in cases),
        "bags": sum(len(case.bag_paths) for case in cases),
        "reports": sum(len(case.reports) for case in cases),
        "incomplete": list(made.incomplete),
        "left_out": left_out,
    }
    for reason, count in left_out.items():
        console.note(f"left out: {count} {reason}")
    if made.incomplete:
        console.note(f"incomplete: {len(made.incomplete)} case(s) lack files, such as {made.incomplete[0]}")
    shown = ", ".join(f"{data[name]} {name}" for name in ("cases", "patients", "slides", "images", "bags", "reports"))
    console.result(data, f"{out}: {shown}", as_json=as_json)


@app.command("split", epilog=SPLIT)
def split(
    manifest: Manifest,
    out: Out,
    train: Annotated[float, typer.Option(min=0, max=1, help="Share of the cases.")] = 0.7,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share of the cases.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of the cases.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another division.")] = 0,
    stratify: Annotated[str | None, typer.Option(metavar="COLUMN", help="Divide its values alike.")] = None,
    as_json: Json = False,
) -> None:
    """Divide a cohort by patient; the seed, the shares and the counts are saved beside the manifest."""
    from wsi_mivpg.cohorts.case import read_manifest, write_manifest
    from wsi_mivpg.cohorts.split import counts, split_cases, write_split_record

    cases = read_manifest(manifest)
    if any(case.split for case in cases):
        console.note(f"{manifest} has splits; they are replaced in {out}")
    fractions = {"train": train, "val": val, "test": test}
    divided = split_cases(cases, fractions, seed=seed, stratify=stratify)
    write_manifest(out, divided)
    record = write_split_record(out, divided, fractions, seed=seed, stratify=stratify)
    found = counts(divided)
    rows = [[name, *of.values()] for name, of in found.items()]
    table = console.table(("split", "cases", "patients", "slides"), rows)
    console.result({"manifest": str(out), "record": str(record), **found}, f"{table}\n\n{out}", as_json=as_json)


@app.command("check", epilog=CHECK)
def check(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Checked as one cohort.")],
    as_json: Json = False,
) -> None:
    """Find leaks between splits, bags that are missing or mixed, and telling reports; exit 3 on a leak or an error."""
    from dataclasses import asdict

    from wsi_mivpg.cohorts.case import read_manifest
    from wsi_mivpg.cohorts.checks import find_leaks

    cases = [case for path in manifests for case in read_manifest(path)]
    findings = find_leaks(cases)
    lines = [f"{one.severity:<8} {one.message}" for one in findings]
    bad = sum(one.severity in ("leak", "error") for one in findings)
    verdict = f"{bad} leak(s) and error(s)" if bad else "no leak, no error"
    text = "\n".join([*lines, "", f"{len(cases)} cases: {verdict}"])
    console.result([asdict(one) for one in findings], text, as_json=as_json)
    if bad:
        raise typer.Exit(console.SOME_FAILED)


@app.command("prepare", epilog=PREPARE)
def prepare(
    manifest: Manifest,
    out: Out,
    drop: Annotated[str, typer.Option(help="Sections to drop, such as gross,history,ihc.")] = "",
    letter_case: Annotated[str, typer.Option("--case", help="keep, sentence (texts in capitals) or lower.")] = "keep",
    diff: Annotated[Path | None, typer.Option(help="File to write every change to, as a unified diff.")] = None,
    as_json: Json = False,
) -> None:
    """Even spaces and capitals of the reports, and drop the sections that H&E cannot support; print counts."""
    from wsi_mivpg.atomic import write_text
    from wsi_mivpg.cohorts.case import read_manifest, write_manifest
    from wsi_mivpg.cohorts.report_text import diff_of, prepare_cases, section_names

    names = [name.strip() for name in drop.split(",") if name.strip()]
    if unknown := [name for name in names if name not in section_names()]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(section_names())}", param_hint="--drop")
    if letter_case not in ("keep", "sentence", "lower"):
        raise typer.BadParameter(f"{letter_case!r} is none of keep, sentence, lower", param_hint="--case")
    cases = read_manifest(manifest)
    done = prepare_cases(cases, names, letter_case)  # type: ignore[arg-type]
    write_manifest(out, done.cases)
    if diff is not None:
        write_text(diff, diff_of(cases, done.cases))
    data: dict[str, Any] = {
        "manifest": str(out),
        "cases": len(done.cases),
        "reports": done.reports,
        "changed": done.changed,
        "dropped_sections": done.dropped_sections,
        "dropped_ihc_sentences": done.dropped_sentences,
        "words_before": done.words[0],
        "words_after": done.words[1],
        "emptied": list(done.emptied),
    }
    if done.emptied:
        console.note(f"left out: {len(done.emptied)} case(s) of which no text is left, such as {done.emptied[0]}")
    sections = ", ".join(f"{name} in {count}" for name, count in done.dropped_sections.items()) or "none"
    text = (
        f"{out}: {len(done.cases)} cases; {done.changed} of {done.reports} reports changed, {done.words[0]} words "
        f"before, {done.words[1]} after\nsections dropped: {sections}; sentences on IHC: {done.dropped_sentences}"
    )
    console.result(data, text, as_json=as_json)
