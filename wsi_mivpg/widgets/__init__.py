"""The viewer of a case: slides, maps of what the model drew on, and sentences, linked to each other.

`SlideViewer` shows it in Jupyter and needs the extra "jupyter"; `server` shows the same in a browser and does not.
"""

from typing import TYPE_CHECKING

from wsi_mivpg.errors import ViewError
from wsi_mivpg.widgets.gather import HasTiles, Tiles

if TYPE_CHECKING:
    from wsi_mivpg.widgets.viewer import SelectedTile, SlideViewer

__all__ = ["HasTiles", "SelectedTile", "SlideViewer", "Tiles"]


def __getattr__(name: str) -> object:
    """Load the widget when it is asked for, and say what is missing where it cannot be."""
    if name not in ("SelectedTile", "SlideViewer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from wsi_mivpg.widgets import viewer
    except ImportError as error:
        raise ViewError(f"the viewer needs anywidget ({error}); pip install 'wsi-mivpg[jupyter]'") from error
    return getattr(viewer, name)
