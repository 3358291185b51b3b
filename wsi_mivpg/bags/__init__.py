"""Feature bags: what crosses from the pixel half to the language half."""

from wsi_mivpg.bags.bag import CONTRACT, FeatureBag, agree, require_contract
from wsi_mivpg.bags.provenance import SCHEMA, BagProvenance
from wsi_mivpg.bags.writing import write_bag

__all__ = ["CONTRACT", "SCHEMA", "BagProvenance", "FeatureBag", "agree", "require_contract", "write_bag"]
