"""One report in many forms: what each looks like is its module's, what all of them say is `document`'s.

Forms of other systems (DICOM SR, FHIR) need the extra `interop`, which is loaded only when one is written.
"""

import json
from collections.abc import Callable
from pathlib import Path

from wsi_mivpg.atomic import write_text
from wsi_mivpg.reports.forms.dicom_sr import dicom_sr, write_dicom_sr
from wsi_mivpg.reports.forms.fhir import diagnostic_report, write_fhir
from wsi_mivpg.reports.forms.geojson import collections
from wsi_mivpg.reports.forms.pseudonyms import Hiding, pseudonym, pseudonymised, read_key
from wsi_mivpg.reports.forms.texts import markdown, plain_text, xhtml
from wsi_mivpg.reports.html import file_name, write_case
from wsi_mivpg.reports.report import Report, write_json

__all__ = [
    "FORMS",
    "Hiding",
    "collections",
    "diagnostic_report",
    "dicom_sr",
    "markdown",
    "plain_text",
    "pseudonym",
    "pseudonymised",
    "read_key",
    "write_dicom_sr",
    "write_fhir",
    "write_form",
    "xhtml",
]


def write_form(form: str, folder: Path, report: Report) -> list[Path]:
    """Write a report in one of `FORMS` below ``folder / form``, each file whole or not at all; return their paths.

    Raises:
        OutputError: the folder cannot be written, or the form's library is not installed.
        TextsError: the report does not say what the form must hold.
    """
    return FORMS[form](folder / form, report)


def _to(suffix: str, write: Callable[[Path, Report], None]) -> Callable[[Path, Report], list[Path]]:
    def write_one(folder: Path, report: Report) -> list[Path]:
        path = folder / f"{_stem(report.case_id)}{suffix}"
        write(path, report)
        return [path]

    return write_one


def _write_geojson(folder: Path, report: Report) -> list[Path]:
    paths = []
    for slide_id, collection in collections(report).items():
        paths.append(folder / _stem(report.case_id) / f"{_stem(slide_id)}.geojson")
        write_text(paths[-1], json.dumps(collection, ensure_ascii=False))
    return paths


def _stem(name: str) -> str:
    return Path(file_name(name)).stem


FORMS: dict[str, Callable[[Path, Report], list[Path]]] = {
    "text": _to(".txt", lambda path, report: write_text(path, plain_text(report))),
    "markdown": _to(".md", lambda path, report: write_text(path, markdown(report))),
    "html": lambda folder, report: [write_case(folder, report, [])],
    "json": _to(".json", write_json),
    "geojson": _write_geojson,
    "dicom-sr": _to(".dcm", write_dicom_sr),
    "fhir": _to(".json", write_fhir),
}
"""Name -> writes a report into a folder and returns the files."""
