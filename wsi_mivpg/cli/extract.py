"""``wsi-mivpg extract``: slides to feature bags."""

from pathlib import Path
from typing import Annotated

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
    extract_all,
    slide_settings,
    write_failures,
)

EXAMPLES = (
    "Examples: wsi-mivpg extract slide.svs --out bags · "
    "wsi-mivpg extract slides/ --out bags --encoder efficientnet-lite0 --json"
)


def extract(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Slides, or folders of slides.")],
    out: Annotated[Path, typer.Option(help="Folder for the bags, one <slide>.h5 each.")],
    encoder: Annotated[str, typer.Option(help="Tile encoder; see wsi-mivpg encoders.")] = "efficientnet-lite0",
    mpp: MppOption = None,
    mpp_csv: MppCsvOption = None,
    reader: ReaderOption = None,
    fast_decode: FastDecodeOption = False,
    tissue: TissueOption = "otsu",
    min_tissue: MinTissueOption = 0.25,
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles per step of the encoder.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make bags again that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Cut the tissue of each slide into tiles, encode them, and write one HDF5 bag per slide."""
    console.writable_folder(out)
    found = collect(inputs)
    results = extract_all(
        found,
        out,
        encoder=encoder,
        device=device,
        settings=slide_settings(mpp, mpp_csv, reader, fast_decode, tissue, min_tissue),
        batch_size=batch_size,
        overwrite=overwrite,
    )
    write_failures(out, found)
    data = [
        {
            "slide_id": one.slide_id,
            "bag": str(one.bag_path),
            "n_tiles": one.n_tiles,
            "n_unreadable": one.n_unreadable,
            "seconds": round(one.seconds, 3),
            "skipped": one.skipped,
        }
        for one in results
    ]
    rows = [
        (
            one["slide_id"],
            one["n_tiles"],
            one["n_unreadable"],
            "kept" if one["skipped"] else f"{one['seconds']:.1f} s",
            one["bag"],
        )
        for one in data
    ]
    if data or as_json:
        payload = {"bags": data, "failures": found.failures}
        console.result(payload, console.table(("slide", "tiles", "unreadable", "time", "bag"), rows), as_json=as_json)
    console.finish(len(data), len(found.failures))
