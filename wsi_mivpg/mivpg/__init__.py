"""The adapter: a Q-Former with correlated self-attention that turns a bag of instances into a visual prompt.

It knows neither slides nor language models. Paper: arXiv 2406.02987.
"""

from wsi_mivpg.mivpg.baselines import ADAPTERS
from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.model import MivpgModel, MivpgOutput
from wsi_mivpg.mivpg.pretrained import Blip2Parts, load_blip2
from wsi_mivpg.mivpg.scenarios import HierarchicalMivpg, PackedBags, many_images, one_image

__all__ = [
    "ADAPTERS",
    "Blip2Parts",
    "HierarchicalMivpg",
    "MivpgConfig",
    "MivpgModel",
    "MivpgOutput",
    "PackedBags",
    "load_blip2",
    "many_images",
    "one_image",
]
