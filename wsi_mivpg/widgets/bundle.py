"""The viewer's JavaScript and style as one text each, put together from the package's own files.

No build step and no network: OpenSeadragon lies beside the report pages, the rest in `assets`.
"""

import json
from functools import cache
from importlib import resources

from wsi_mivpg.colour_map import COLOUR_MAPS

_PARTS = ("heatmap.js", "tiles.js", "panel.js", "viewer.js")


def jupyter_script() -> str:
    """Return the ES module of the widget."""
    return f"{_viewer()}\n{_asset('jupyter.js')}"


def page_script() -> str:
    """Return the ES module of a page of `wsi-mivpg view`."""
    return f"{_viewer()}\n{_asset('page.js')}"


@cache
def style() -> str:
    """Return the style sheet of the viewer."""
    return _asset("viewer.css")


@cache
def _viewer() -> str:
    openseadragon = resources.files("wsi_mivpg.reports").joinpath("assets/openseadragon.min.js").read_text("utf-8")
    # Its own scope, without `define` and `module`: where a page has RequireJS, it would register itself there.
    # The source map it names is not in the package, and asking for it would be an error in the browser's console.
    lines = [line for line in openseadragon.splitlines() if not line.startswith("//# sourceMappingURL")]
    library = "\n".join(lines)
    colours = f"const COLOURS = {json.dumps(COLOUR_MAPS)};"
    start = (
        "const OpenSeadragon = (() => { const define = undefined, module = { exports: {} }, exports = module.exports;"
    )
    return "\n".join([start, library, "return OpenSeadragon; })();", colours, *map(_asset, _PARTS)])


def _asset(name: str) -> str:
    return resources.files("wsi_mivpg.widgets").joinpath("assets", name).read_text("utf-8")
