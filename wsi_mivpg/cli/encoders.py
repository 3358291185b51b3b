"""``wsi-mivpg encoders``: the registry of tile encoders."""

from dataclasses import asdict
from typing import Annotated

import typer

from wsi_mivpg.cli import console

EXAMPLES = "Examples: wsi-mivpg encoders · wsi-mivpg encoders --json"


def encoders(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the tile encoders: size, resolution, licence, and whether each is available here."""
    from wsi_mivpg.encoders.registry import REGISTRY, is_available

    data = []
    for spec in REGISTRY.values():
        available, how_to_get = is_available(spec)
        data.append(asdict(spec) | {"available": available, "how_to_get": how_to_get})
    headers = ("encoder", "dim", "tile px", "mpp", "licence", "gated", "available here")
    rows = [
        (
            one["name"],
            one["dim"],
            one["tile_px"],
            one["mpp"],
            one["licence"],
            "yes" if one["gated"] else "no",
            "yes" if one["available"] else f"no: {one['how_to_get']}",
        )
        for one in data
    ]
    console.result(data, console.table(headers, rows), as_json=as_json)
