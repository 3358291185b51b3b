"""Which part of a slide is tissue."""

from wsi_mivpg.tissue.finding import PLUGIN_GROUP, find_tissue, method_named, provenance_name
from wsi_mivpg.tissue.mask import TissueMask
from wsi_mivpg.tissue.qc import qc_image
from wsi_mivpg.tissue.stain import TISSUE_METHOD

__all__ = ["PLUGIN_GROUP", "TISSUE_METHOD", "TissueMask", "find_tissue", "method_named", "provenance_name", "qc_image"]
