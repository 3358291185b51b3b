"""``wsi-mivpg info``: what a slide says of itself, and what would be tiled."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import (
    FastDecodeOption,
    MinTissueOption,
    MppCsvOption,
    MppOption,
    ReaderOption,
    TissueOption,
    collect,
    slide_settings,
)
from wsi_mivpg.errors import ResolutionError, WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.extraction import SlideInput, SlideSettings
    from wsi_mivpg.slides import Slide
    from wsi_mivpg.tiling import TilePlan
    from wsi_mivpg.tissue import TissueMask

EXAMPLES = (
    "Examples: wsi-mivpg info slide.svs · wsi-mivpg info slide.tif --mpp 0.25 --json · "
    "wsi-mivpg info slides/ --qc out/qc"
)
QC_PX = 2000


def info(
    slides: Annotated[
        list[str], typer.Argument(metavar="SLIDE...", help="Slide files, folders of them, a CSV, or addresses.")
    ],
    mpp: MppOption = None,
    mpp_csv: MppCsvOption = None,
    reader: ReaderOption = None,
    fast_decode: FastDecodeOption = False,
    tissue: TissueOption = "otsu",
    min_tissue: MinTissueOption = 0.25,
    encoder: Annotated[str, typer.Option(help="Encoder whose tiles are counted.")] = "efficientnet-lite0",
    qc: Annotated[Path | None, typer.Option(help="Folder for a picture of each slide: outline and tiles.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Size, microns per pixel, levels, reader, tissue, and how many tiles would be cut."""
    from wsi_mivpg.encoders.registry import find_spec

    spec = find_spec(encoder)
    settings = slide_settings(mpp, mpp_csv, reader, fast_decode, tissue, min_tissue)
    if qc is not None:
        console.writable_folder(qc, "choose another --qc")
    inputs = collect(slides)
    found: list[dict[str, Any]] = []
    for slide in inputs.slides:
        try:
            found.append(_describe(slide, settings, spec.mpp, spec.tile_px, qc))
        except WsiMivpgError as problem:
            inputs.fail(slide.shown, problem)
    if found:
        console.result(found, "\n\n".join(_as_text(one) for one in found), as_json=as_json)
    console.finish(len(found), len(inputs.failures))


def _describe(
    given: "SlideInput", settings: "SlideSettings", target_mpp: float, tile_px: int, qc: Path | None
) -> dict[str, Any]:
    from wsi_mivpg.tiling import plan_tiles

    with settings.open(given.source, given.mpp) as slide:
        tissue = settings.find_tissue(slide)
        try:
            plan = plan_tiles(
                slide.size_px,
                slide.mpp,
                target_mpp=target_mpp,
                tile_px=tile_px,
                coverage=tissue.coverage,
                min_tissue=settings.min_tissue,
            )
        except ResolutionError as error:
            raise ResolutionError(f"{given.shown}: {error}") from error
        picture = None if qc is None else _write_qc(qc / f"{given.slide_id}.jpg", slide, tissue, plan)
        return {
            "slide": given.shown,
            "reader": slide.reader,
            "vendor": slide.vendor,
            "size_px": list(slide.size_px),
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "downsamples": list(slide.downsamples),
            "tissue_method": tissue.method,
            "tissue_mm2": round(tissue.tissue_mm2, 3),
            "tile_px": tile_px,
            "target_mpp": target_mpp,
            "n_tiles": len(plan),
            "qc": None if picture is None else str(picture),
        }


def _write_qc(path: Path, slide: "Slide", tissue: "TissueMask", plan: "TilePlan") -> Path:
    import numpy as np
    from PIL import Image

    from wsi_mivpg.atomic import replaced
    from wsi_mivpg.tissue import qc_image

    boxes = np.column_stack([plan.coords, np.full((len(plan), 2), plan.tile_size_l0)])
    with replaced(path) as temporary:
        Image.fromarray(qc_image(slide.thumbnail(QC_PX), tissue, boxes)).save(temporary, "jpeg", quality=90)
    return path


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
        ("tissue", f"{one['tissue_mm2']:g} mm² ({one['tissue_method']})"),
        ("tissue tiles", f"{one['n_tiles']} of {one['tile_px']} px at {one['target_mpp']:g} microns per px"),
    ]
    rows += [("picture", one["qc"])] if one["qc"] else []
    return f"{one['slide']}\n" + "\n".join(f"  {name:<15} {value}" for name, value in rows)
