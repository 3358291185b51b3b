"""MIVPG in front of any Hugging Face causal language model: bags in, report texts out.

It reads features and provenance only; slides and files of bags are other rooms' work.
"""

from wsi_mivpg.captioner.configuration import CaptionerConfig
from wsi_mivpg.captioner.language_models import load_language_model
from wsi_mivpg.captioner.model import Generated, SlideCaptioner

__all__ = ["CaptionerConfig", "Generated", "SlideCaptioner", "load_language_model"]
