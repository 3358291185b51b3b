"""The engine that turns slides into feature bags."""

from wsi_mivpg.extraction.extract import (
    ExtractionResult,
    ExtractionSummary,
    Failure,
    Progress,
    extract_many,
    extract_slide,
)
from wsi_mivpg.extraction.finding import find_slides, unique_ids
from wsi_mivpg.extraction.settings import SlideSettings, read_mpp_csv

__all__ = [
    "ExtractionResult",
    "ExtractionSummary",
    "Failure",
    "Progress",
    "SlideSettings",
    "extract_many",
    "extract_slide",
    "find_slides",
    "read_mpp_csv",
    "unique_ids",
]
