"""The adapter: a Q-Former with correlated self-attention that turns a bag of instances into a visual prompt.

It knows neither slides nor language models. Paper: arXiv 2406.02987.
"""

from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.model import MivpgModel, MivpgOutput

__all__ = ["MivpgConfig", "MivpgModel", "MivpgOutput"]
