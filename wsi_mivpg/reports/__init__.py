"""The written report of a case and its files: JSON Lines and self-contained HTML pages.

Knows no slide reader and no model; it is given text, figures and pictures.
"""

from wsi_mivpg.reports.html import SlidePanel, case_page, file_name, index_page, render_case, write_case
from wsi_mivpg.reports.report import (
    DISCLAIMER,
    Faithfulness,
    Provenance,
    Report,
    Sentence,
    SlideSummary,
    TopTile,
    read_jsonl,
    write_jsonl,
)

__all__ = [
    "DISCLAIMER",
    "Faithfulness",
    "Provenance",
    "Report",
    "Sentence",
    "SlidePanel",
    "SlideSummary",
    "TopTile",
    "case_page",
    "file_name",
    "index_page",
    "read_jsonl",
    "render_case",
    "write_case",
    "write_jsonl",
]
