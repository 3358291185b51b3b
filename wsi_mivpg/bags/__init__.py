"""Feature bags: what crosses from the pixel half to the language half."""

from wsi_mivpg.bags.bag import FeatureBag
from wsi_mivpg.bags.provenance import SCHEMA, BagProvenance
from wsi_mivpg.bags.writing import write_bag

__all__ = ["SCHEMA", "BagProvenance", "FeatureBag", "write_bag"]
