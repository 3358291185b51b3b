"""``wsi-mivpg export``: written reports in other forms (text, GeoJSON, DICOM SR, FHIR …), under pseudonyms or not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import Inputs, write_failures
from wsi_mivpg.errors import TextsError, WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.reports import DicomInstance, Report, SlideSummary
    from wsi_mivpg.reports.reading import Record

EXAMPLES = (
    "Examples: wsi-mivpg export out/report --to text --out out/text · "
    "wsi-mivpg export out/report --to dicom-sr --to fhir --out out/exchange · "
    "wsi-mivpg export out/report/case.json --to all --pseudonymise key.txt --out out/shared --json"
)


class Target(StrEnum):
    """A form, or all of them."""

    text = "text"
    markdown = "markdown"
    html = "html"
    json = "json"
    geojson = "geojson"
    dicom_sr = "dicom-sr"
    fhir = "fhir"
    all = "all"


@dataclass
class _Run:
    """What is asked of every report, and what has come of it so far."""

    forms: Sequence[str]
    out: Path
    key: bytes | None
    found: Inputs = field(default_factory=Inputs)
    done: list[dict[str, Any]] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)


def export(
    reports: Annotated[
        list[Path], typer.Argument(metavar="REPORTS...", help="Folders that `report` wrote, reports.jsonl, CASE.json.")
    ],
    to: Annotated[list[Target], typer.Option(help="The form; repeat for several.")],
    out: Annotated[Path, typer.Option(help="Folder to write; files go to OUT/FORM/.")],
    pseudonymise: Annotated[
        Path | None,
        typer.Option(metavar="KEYFILE", help="Hash ids with the secret key in this file, and drop places of files."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write reports in other forms; each says that a model wrote it and that no pathologist has verified it."""
    from wsi_mivpg.reports.forms import FORMS, read_key

    forms = list(FORMS) if Target.all in to else list(dict.fromkeys(str(one) for one in to))
    run = _Run(forms, console.writable_folder(out), None if pseudonymise is None else read_key(pseudonymise))
    for shown, record in _records(reports, run.key):
        _export_one(run, shown, record)
    write_failures(out, run.found)
    if run.done:
        text = "\n".join(path for one in run.done for path in one["files"])
        data = {"cases": run.done, "failures": run.found.failures}
        console.result(data, text, as_json=as_json)
    console.finish(len(run.done), len(run.found.failures))


def _records(given: Sequence[Path], key: bytes | None) -> "Iterator[tuple[str, Record]]":
    """Yield each record with what outputs call it: files' names may be ids, so that pseudonyms go with numbers."""
    from wsi_mivpg.reports.reading import records

    for number, path in enumerate(dict.fromkeys(given), 1):
        for count, record in enumerate(records(path), 1):
            yield record.place if key is None else f"input {number}, report {count}", record


def _export_one(run: _Run, shown: str, record: "Record") -> None:
    """Write one report in all forms; what cannot be written is noted, and the rest goes on.

    Raises:
        OutputError: nothing can be written, or the library of a form is not installed; no report would fare better.
    """
    from wsi_mivpg.reports.forms import Hiding, pseudonymised, write_form

    if isinstance(record.found, TextsError):
        run.found.fail(shown, record.found)
        if run.key is not None:
            run.found.failures[shown] = "not a report; the program's messages say where"
        return
    report = _with_dicom(record.found, record.folder)
    first = run.places.setdefault(report.case_id, record.place)
    told = report if run.key is None else pseudonymised(report, run.key)
    written: list[Path] = []
    for form in run.forms:
        try:
            if first != record.place:
                raise TextsError(f"{record.place}: case {report.case_id} again, after {first}; export it apart")
            written += write_form(form, run.out, told)
        except TextsError as problem:
            name = f"{shown}, {form}"
            run.found.fail(name, problem)
            if run.key is not None:
                run.found.failures[name] = Hiding(report, run.key).in_words(_without(str(problem), record.place, first))
    if written:
        run.done.append({"case_id": told.case_id, "files": [str(path) for path in written]})


def _without(message: str, *places: str) -> str:
    for place in places:
        message = message.replace(place, "[file]")
    return message


def _with_dicom(report: "Report", folder: Path) -> "Report":
    """Add the UIDs of DICOM slides from their bags, where the report does not say them and the bags are at hand."""
    slides = tuple(
        slide if slide.dicom or not slide.bag else slide.model_copy(update={"dicom": _dicom_of(slide, folder)})
        for slide in report.slides
    )
    return report.model_copy(update={"slides": slides})


def _dicom_of(slide: "SlideSummary", folder: Path) -> "DicomInstance | None":
    from wsi_mivpg.bags import FeatureBag
    from wsi_mivpg.reports import dicom_instance

    try:
        return dicom_instance(FeatureBag.open(folder / str(slide.bag)).provenance)
    except WsiMivpgError:  # gone, or made anew by another version: the report stands without it
        return None
