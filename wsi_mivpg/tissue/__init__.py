"""Which part of a slide is tissue."""

from wsi_mivpg.tissue.mask import TISSUE_METHOD, TissueMask, find_tissue

__all__ = ["TISSUE_METHOD", "TissueMask", "find_tissue"]
