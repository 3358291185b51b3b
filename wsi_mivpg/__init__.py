"""WSI-MIVPG: from a whole-slide image to a written report.

Importing this package loads neither torch nor transformers; import the room you need
(``wsi_mivpg.slides``, ``wsi_mivpg.captioner`` …).
"""

__version__ = "0.1.0"
