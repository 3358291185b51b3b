"""The written report of a case and its files: JSON Lines and self-contained HTML pages.

Knows no slide reader and no model; it is given text, figures and pictures.
"""

from wsi_mivpg.reports.dicom_uids import DicomInstance, dicom_instance
from wsi_mivpg.reports.html import case_page, file_name, index_page, render_case, write_case
from wsi_mivpg.reports.overview import write_overview, write_thumbnail
from wsi_mivpg.reports.panel import SlidePanel
from wsi_mivpg.reports.records import REPORTS, Records, held_records
from wsi_mivpg.reports.report import (
    DISCLAIMER,
    NOT_ASSESSABLE,
    Consensus,
    Faithfulness,
    FieldValue,
    Gate,
    Provenance,
    Report,
    Sentence,
    SlideSummary,
    TopTile,
    iterate_jsonl,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from wsi_mivpg.reports.zoom import ZOOM_BYTES, ZoomLevel, zoom_levels

__all__ = [
    "DISCLAIMER",
    "NOT_ASSESSABLE",
    "REPORTS",
    "ZOOM_BYTES",
    "Consensus",
    "DicomInstance",
    "Faithfulness",
    "FieldValue",
    "Gate",
    "Provenance",
    "Records",
    "Report",
    "Sentence",
    "SlidePanel",
    "SlideSummary",
    "TopTile",
    "ZoomLevel",
    "case_page",
    "dicom_instance",
    "file_name",
    "held_records",
    "index_page",
    "iterate_jsonl",
    "read_json",
    "read_jsonl",
    "render_case",
    "write_case",
    "write_json",
    "write_jsonl",
    "write_overview",
    "write_thumbnail",
    "zoom_levels",
]
