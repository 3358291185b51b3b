"""What shows all reports of a folder: ``index.html`` with small pictures, and ``reports.csv``.

Both are written from ``reports.jsonl``, one report after the other, so that their number costs no memory.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from wsi_mivpg.atomic import replaced
from wsi_mivpg.errors import OutputError
from wsi_mivpg.reports.html import file_name, index_page
from wsi_mivpg.reports.pictures import jpeg_bytes, shrunk
from wsi_mivpg.reports.records import Records
from wsi_mivpg.reports.report import FieldValue, Report, iterate_jsonl

INDEX, TABLE, THUMBNAILS = "index.html", "reports.csv", "thumbnails"
_THUMBNAIL_PX = 264  # twice as wide as it is shown, for fine screens
_COLUMNS = (
    "case_id",
    "text",
    "supported",
    "n_slides",
    "n_tiles",
    "n_warnings",
    "warnings",
    "forced",
    "mean_logprob",
    "prompt",
    "model",
    "created",
    "settings_hash",
)


def write_overview(folder: Path, records: Records, failures: Mapping[str, str]) -> None:
    """Write the index and the table of all reports of a folder, each whole or not at all.

    Args:
        folder: of the pages.
        records: its reports.
        failures: what this run could not report on (name -> reason).

    Raises:
        OutputError: the folder cannot be written.
    """
    _write_table(folder / TABLE, records.path)

    def picture(case_id: str) -> str | None:
        path = _thumbnail_path(case_id)
        return quote(str(path)) if (folder / path).exists() else None

    try:
        with replaced(folder / INDEX) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(index_page(iterate_jsonl(records.path), len(records), failures, picture))
    except OSError as error:
        raise OutputError(f"cannot write {folder / INDEX}: {error}; free space there, and run again") from error


def write_thumbnail(folder: Path, case_id: str, image: npt.NDArray[np.uint8]) -> None:
    """Write a case's small picture for the index, from uint8 (H, W, 3).

    Raises:
        OutputError: the folder cannot be written.
    """
    with replaced(folder / _thumbnail_path(case_id)) as temporary:
        temporary.write_bytes(jpeg_bytes(shrunk(image, _THUMBNAIL_PX), quality=82))


def _thumbnail_path(case_id: str) -> Path:
    return Path(THUMBNAILS, file_name(case_id)).with_suffix(".jpg")


def _write_table(path: Path, reports: Path) -> None:
    gates: dict[str, None] = {}
    fields: dict[str, None] = {}
    for report in iterate_jsonl(reports):
        gates |= dict.fromkeys(f"gate: {gate.name}" for gate in report.gates)
        fields |= dict.fromkeys(name for field in report.fields for name in _field_cells(field))
    try:
        with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*_COLUMNS, *gates, *fields], restval="")
            writer.writeheader()
            writer.writerows(map(_row, iterate_jsonl(reports)))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}; free space there, and run again") from error


def _row(report: Report) -> dict[str, Any]:
    return {
        "case_id": report.case_id,
        "text": report.shown_text,
        "supported": report.is_known_to_be_supported,
        "n_slides": len(report.slides),
        "n_tiles": sum(slide.n_tiles for slide in report.slides),
        "n_warnings": len(report.warnings),
        "warnings": " | ".join(report.warnings),
        "forced": " | ".join(report.forced),
        "mean_logprob": report.mean_logprob,
        "prompt": report.prompt,
        "model": report.model.get("name"),
        "created": report.provenance.created,
        "settings_hash": report.settings_hash,
        **{f"gate: {gate.name}": gate.value for gate in report.gates},
        **{name: cell for field in report.fields for name, cell in _field_cells(field).items()},
    }


def _field_cells(field: FieldValue) -> dict[str, Any]:
    """The value where it is assessable, how sure the model is of it, and the calibrated confidence if there is one."""
    return {
        f"field: {field.name}": field.value if field.assessable else None,
        f"probability: {field.name}": field.probability,
        f"confidence: {field.name}": field.confidence,
    }
