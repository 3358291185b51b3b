"""What the model attended to, as pictures and figures.

Works on tile coordinates and weights alone; it opens no slide and loads no model.
"""

from wsi_mivpg.evidence.heatmap import (
    attention_rgba,
    attention_share_of_top,
    rank_scaled,
    top_tiles,
)

__all__ = ["attention_rgba", "attention_share_of_top", "rank_scaled", "top_tiles"]
