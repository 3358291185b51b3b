"""Where converted models are kept between runs."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return ``$WSI_MIVPG_CACHE``, else ``$XDG_CACHE_HOME/wsi-mivpg``, else ``~/.cache/wsi-mivpg``."""
    if own := os.environ.get("WSI_MIVPG_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wsi-mivpg"
