"""Tile encoders: the registry is light; `wsi_mivpg.encoders.load` brings torch."""

from wsi_mivpg.encoders.registry import REGISTRY, EncoderSpec, TileEncoder, find_spec, is_available

__all__ = ["REGISTRY", "EncoderSpec", "TileEncoder", "find_spec", "is_available"]
