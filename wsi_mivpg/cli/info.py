"""``wsi-mivpg info``: what a slide says of itself, and what would be tiled."""

from pathlib import Path
from typing import Annotated, Any

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.errors import WsiMivpgError

EXAMPLES = "Examples: wsi-mivpg info slide.svs · wsi-mivpg info slide.tif --mpp 0.25 --json"


def info(
    slides: Annotated[list[Path], typer.Argument(metavar="SLIDE...", help="Slide files, or folders of them.")],
    mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel of level 0, where the file is silent or wrong.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder whose tiles are counted.")] = "efficientnet-lite0",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Size, microns per pixel, levels, vendor, and how many tissue tiles would be cut."""
    from wsi_mivpg.encoders.registry import find_spec
    from wsi_mivpg.extraction import find_slides

    spec = find_spec(encoder)
    found: list[dict[str, Any]] = []
    failures = 0
    for given in slides:
        try:
            paths = find_slides([given])
        except WsiMivpgError as problem:
            console.error(problem)
            failures += 1
            continue
        for path in paths:
            try:
                found.append(_describe(path, mpp, spec.mpp, spec.tile_px))
            except WsiMivpgError as problem:
                console.error(problem)
                failures += 1
    if found:
        console.result(found, "\n\n".join(_as_text(one) for one in found), as_json=as_json)
    console.finish(len(found), failures)


def _describe(path: Path, mpp: float | None, target_mpp: float, tile_px: int) -> dict[str, Any]:
    from wsi_mivpg.slides import open_slide
    from wsi_mivpg.tiling import plan_tiles
    from wsi_mivpg.tissue import find_tissue

    with open_slide(path, mpp=mpp) as slide:
        tissue = find_tissue(slide)
        plan = plan_tiles(slide.size_px, slide.mpp, target_mpp=target_mpp, tile_px=tile_px, coverage=tissue.coverage)
        return {
            "slide": str(path),
            "reader": slide.reader,
            "vendor": slide.vendor,
            "size_px": list(slide.size_px),
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "downsamples": list(slide.downsamples),
            "tile_px": tile_px,
            "target_mpp": target_mpp,
            "n_tiles": len(plan),
        }


def _as_text(one: dict[str, Any]) -> str:
    width, height = one["size_px"]
    levels = ", ".join(f"{downsample:g}" for downsample in one["downsamples"])
    rows = [
        (
            "size",
            f"{width} x {height} px ({width * one['mpp'] / 1000:.2f} x {height * one['mpp'] / 1000:.2f} mm)",
        ),
        ("microns per px", f"{one['mpp']:.4g} (from {one['mpp_source']})"),
        ("levels", f"{levels} (downsamples)"),
        ("reader", f"{one['reader']}, vendor {one['vendor']}"),
        ("tissue tiles", f"{one['n_tiles']} of {one['tile_px']} px at {one['target_mpp']:g} microns per px"),
    ]
    return f"{one['slide']}\n" + "\n".join(f"  {name:<15} {value}" for name, value in rows)
