"""Whole-slide images behind one small object that knows its microns per pixel."""

from wsi_mivpg.slides.reading import Slide, open_slide

__all__ = ["Slide", "open_slide"]
