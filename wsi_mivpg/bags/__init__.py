"""Feature bags: what crosses from the pixel half to the language half."""

from wsi_mivpg.bags.bag import SCHEMA, BagProvenance, FeatureBag, write_bag

__all__ = ["SCHEMA", "BagProvenance", "FeatureBag", "write_bag"]
