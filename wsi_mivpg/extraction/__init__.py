"""The engine that turns slides into feature bags."""

from wsi_mivpg.extraction.inputs import SlideInput, find_slides, slide_input, unique_ids
from wsi_mivpg.extraction.run import extract_many, extract_slide
from wsi_mivpg.extraction.settings import SlideSettings, read_mpp_csv
from wsi_mivpg.extraction.summary import ExtractionResult, ExtractionSummary, Failure, Progress, Throughput
from wsi_mivpg.extraction.tile_choice import TileChoice, choose_tiles

__all__ = [
    "ExtractionResult",
    "ExtractionSummary",
    "Failure",
    "Progress",
    "SlideInput",
    "SlideSettings",
    "Throughput",
    "TileChoice",
    "choose_tiles",
    "extract_many",
    "extract_slide",
    "find_slides",
    "read_mpp_csv",
    "slide_input",
    "unique_ids",
]
