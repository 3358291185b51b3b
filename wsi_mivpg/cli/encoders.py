"""``wsi-mivpg encoders``: the registry of tile encoders."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console

if TYPE_CHECKING:
    from wsi_mivpg.encoders import EncoderSpec

EXAMPLES = "Examples: wsi-mivpg encoders · wsi-mivpg encoders --json"

HEADERS = ("encoder", "dim", "tile px", "mpp", "precision", "licence", "gated", "here", "how to get")
ADVICE = """
What the Hugging Face hub gives is downloaded at first use, or before with `hf download ID` (--json has the commits).
Gated: first ask for access on https://huggingface.co/ID and log in with `hf auth login`.
Without a network: copy the file or the downloaded folder here and give it with --weights PATH.
Remote code: read the repository's Python code first; it runs only with --trust-remote-code.
Your own encoder: --encoder module:function, or an entry point of the group wsi_mivpg.encoders."""


def encoders(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the tile encoders: size, resolution, licence, whether each is available here, and how to get it."""
    from wsi_mivpg.encoders import REGISTRY, is_available

    data, rows = [], []
    for spec in REGISTRY.values():
        available, how_to_get = is_available(spec)
        data.append(asdict(spec) | {"available": available, "how_to_get": how_to_get})
        gated, here = ("yes" if yes else "no" for yes in (spec.gated, available))
        figures = (spec.name, spec.dim, spec.tile_px, spec.mpp, spec.precision, spec.licence)
        rows.append((*figures, gated, here, "" if available else _short_way(spec, how_to_get)))
    console.result(data, f"{console.table(HEADERS, rows)}\n{ADVICE}", as_json=as_json)


def _short_way(spec: "EncoderSpec", how_to_get: str) -> str:
    """The way to an encoder, without what is the same for all of them and stands below the table."""
    way = how_to_get if spec.hub_id is None else f"hub: {spec.hub_id}"
    return f"{way} (remote code)" if spec.loader == "remote-code" else way
