"""Whole-slide images behind one small object that knows its microns per pixel."""

from wsi_mivpg.slides.reading import Slide
from wsi_mivpg.slides.registry import READERS, open_slide
from wsi_mivpg.slides.stream import RegionBatch, stream_regions

__all__ = ["READERS", "RegionBatch", "Slide", "open_slide", "stream_regions"]
