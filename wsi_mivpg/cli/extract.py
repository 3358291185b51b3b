"""``wsi-mivpg extract``: slides to feature bags."""

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
    extraction_progress,
    note_failures,
    note_waiting,
    slide_settings,
    write_failures,
)

if TYPE_CHECKING:
    from wsi_mivpg.extraction import ExtractionSummary
    from wsi_mivpg.extraction.devices import EncoderChoice

EXAMPLES = (
    "Examples: wsi-mivpg extract slide.svs --out bags · "
    "wsi-mivpg extract slides/ --out bags --device cuda:0,cuda:1 · "
    "wsi-mivpg extract cohort.csv --out bags --json · "
    "wsi-mivpg extract https://host/slide.svs --out bags · "
    "wsi-mivpg extract patches/ --patches --mpp 0.5 --out bags · "
    "wsi-mivpg extract photographs/ --patch-tokens --encoder blip2-eva-vit-g --out bags"
)


def extract(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Slides, folders of them, a CSV with slide_id,path[,case_id][,mpp], a cohort (.jsonl), or addresses.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the bags, one <slide>.h5 each.")],
    encoder: Annotated[
        str, typer.Option(help="Tile encoder, or several with commas; see wsi-mivpg encoders.")
    ] = "efficientnet-lite0",
    weights: Annotated[
        list[Path] | None, typer.Option(help="The encoder's weights: a file or a folder; once for each encoder.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let an encoder that needs it run its publisher's code.")
    ] = False,
    pattern: Annotated[str | None, typer.Option(help="Which files of a folder are slides, such as '*.png'.")] = None,
    patches: Annotated[bool, typer.Option("--patches", help="Folders hold patches cut before, not slides.")] = False,
    patch_tokens: Annotated[
        bool, typer.Option("--patch-tokens", help="Inputs are pictures: keep the patch tokens of each in its place.")
    ] = False,
    mpp: MppOption = None,
    mpp_csv: MppCsvOption = None,
    reader: ReaderOption = None,
    fast_decode: FastDecodeOption = False,
    tissue: TissueOption = "otsu",
    min_tissue: MinTissueOption = 0.25,
    tile_px: Annotated[
        int | None, typer.Option(min=1, help="Side of a tile in place of the encoder's; it is resized to that.")
    ] = None,
    tile_mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel of tiles in place of the encoder's.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take tiles that the encoder was not trained on; go on with little disk.")
    ] = False,
    batch_size: Annotated[str, typer.Option(help="Tiles per step of the encoder; auto finds a good number.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or several with commas: a process for each.")] = "cpu",
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or fp16; auto takes bf16 where the hardware has it.")
    ] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Let torch compile the encoder first.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use; default all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make bags again that are there.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until slides that other runs hold are done; do those of dead runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Cut the tissue of each slide into tiles, encode them, and write one HDF5 bag per slide.

    With --patch-tokens the inputs are pictures: each is taken whole, and its bag holds the encoder's patch tokens.

    Stop it at any time: what is there is whole, and the same command goes on. Several runs into one folder share the
    work. status.csv, failures.csv and summary.md beside the bags say what became of each slide.
    """
    if patch_tokens:
        _refuse_slide_options(
            {
                "--patches": patches,
                "--mpp": mpp,
                "--mpp-csv": mpp_csv,
                "--reader": reader,
                "--tile-px": tile_px,
                "--tile-mpp": tile_mpp,
            }
        )
    console.writable_folder(out)
    settings = slide_settings(mpp, mpp_csv, reader, fast_decode, tissue, min_tissue)
    found = collect(inputs, pattern=pattern, patches=patches, pictures=patch_tokens)
    if not found.slides:
        write_failures(out, found)
        console.finish(0, len(found.failures))
        return
    from wsi_mivpg.extraction.devices import RunChoice, extract_on
    from wsi_mivpg.extraction.preflight import checked_disk

    choice = RunChoice(
        encoders=_encoders(encoder, weights or []),
        trust_remote_code=trust_remote_code,
        settings=settings,
        tile_px=tile_px,
        tile_mpp=tile_mpp,
        force=force,
        precision=precision,
        compiled=compiled,
        batch_size=_batch_size(batch_size),
        threads=threads,
        overwrite=overwrite,
        patch_tokens=patch_tokens,
        wait=wait,
    )
    console.note(checked_disk(found.slides, out, choice))
    lost = dict(found.failures)
    with extraction_progress() as on_progress, console.stop_on_sigterm():
        summary = extract_on(device.split(","), found.slides, out, choice, on_progress, lost, note_waiting)
    note_failures(found, summary)
    _print(summary, found.failures, as_json)
    console.finish(len(summary.results) + len(summary.elsewhere), len(found.failures))


def _refuse_slide_options(options: dict[str, object]) -> None:
    for name, value in options.items():
        if value:
            raise typer.BadParameter("it is for slides; with --patch-tokens pictures are taken whole", param_hint=name)


def _encoders(names: str, weights: list[Path]) -> "tuple[EncoderChoice, ...]":
    from wsi_mivpg.extraction.devices import EncoderChoice

    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise typer.BadParameter("no encoder is named", param_hint="--encoder")
    if weights and len(weights) != len(chosen):
        raise typer.BadParameter(
            f"{len(weights)} for {len(chosen)} encoders; give one for each", param_hint="--weights"
        )
    return tuple(EncoderChoice(name, weights[i] if weights else None) for i, name in enumerate(chosen))


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither auto nor a number of tiles", param_hint="--batch-size")
    return int(text)


def _print(summary: "ExtractionSummary", failures: dict[str, str], as_json: bool) -> None:
    bags: list[dict[str, Any]] = [
        {
            "slide_id": one.slide_id,
            "bag": str(path),
            "n_tiles": one.n_tiles,
            "n_unreadable": one.n_unreadable,
            "seconds": round(one.seconds, 3),
            "skipped": one.skipped,
        }
        for one in summary.results
        for path in one.bag_paths
    ]
    throughput = [
        {
            "n_tiles": one.n_tiles,
            "wall_s": round(one.wall_s, 3),
            "encode_phase_s": round(one.encode_phase_s, 3),
            "tiles_per_s": round(one.tiles_per_s, 2),
            "encoder_busy": round(one.encoder_busy, 4),
            "reading": round(one.reading, 4),
            "waited_for_slides_s": round(one.waited_for_slides_s, 3),
            "waited_for_encoder_s": round(one.waited_for_encoder_s, 3),
            "write_s": round(one.write_s, 3),
        }
        for one in summary.throughput
    ]
    rows = [
        (
            one["slide_id"],
            one["n_tiles"],
            one["n_unreadable"],
            "kept" if one["skipped"] else f"{one['seconds']:.1f} s",
            one["bag"],
        )
        for one in bags
    ]
    for part in summary.throughput:
        if part.n_tiles:
            console.note(part.described)
    if bags or as_json:
        payload = {"bags": bags, "failures": failures, "elsewhere": summary.elsewhere, "throughput": throughput}
        console.result(payload, console.table(("slide", "tiles", "unreadable", "time", "bag"), rows), as_json=as_json)
