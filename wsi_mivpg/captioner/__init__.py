"""An adapter in front of any Hugging Face language model: cases of bags in, report texts out.

It reads features and provenance only; slides and files of bags are other rooms' work.
"""

from wsi_mivpg.captioner.configuration import CaptionerConfig
from wsi_mivpg.captioner.contract import forced_differences, tissue_settings
from wsi_mivpg.captioner.generated import Generated
from wsi_mivpg.captioner.inputs import CaseBags, draw, in_memory, pack, read_case, subset
from wsi_mivpg.captioner.language_models import load_language_model
from wsi_mivpg.captioner.model import SlideCaptioner
from wsi_mivpg.captioner.scoring import report_attention, report_logprobs, visual_rollout

__all__ = [
    "CaptionerConfig",
    "CaseBags",
    "Generated",
    "SlideCaptioner",
    "draw",
    "forced_differences",
    "in_memory",
    "load_language_model",
    "pack",
    "read_case",
    "report_attention",
    "report_logprobs",
    "subset",
    "tissue_settings",
    "visual_rollout",
]
