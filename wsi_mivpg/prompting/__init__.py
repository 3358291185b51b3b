"""How a model is asked: sections, structured fields under a JSON Schema, questions with a closed set of answers."""

from wsi_mivpg.prompting.fill import Filled, FilledField, fill
from wsi_mivpg.prompting.schema import FieldSchema, load_schema

__all__ = ["FieldSchema", "Filled", "FilledField", "fill", "load_schema"]
