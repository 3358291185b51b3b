"""From a recipe and cases with bags to a trained report model, through Hugging Face's Trainer."""

from wsi_mivpg.training.recipe import Recipe, load_recipe
from wsi_mivpg.training.train import TrainResult, train

__all__ = ["Recipe", "TrainResult", "load_recipe", "train"]
