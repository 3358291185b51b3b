"""Where the tiles of a slide lie: geometry without pixels."""

from wsi_mivpg.tiling.plan import TilePlan, plan_tiles

__all__ = ["TilePlan", "plan_tiles"]
