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

__all__ = [
    "ExtractionResult",
    "ExtractionSummary",
    "Failure",
    "Progress",
    "extract_many",
    "extract_slide",
    "find_slides",
    "unique_ids",
]
