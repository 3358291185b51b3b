"""``wsi-mivpg bags``: look into bags of this and other tools, check them, convert them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.errors import WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.bags import FeatureBag
    from wsi_mivpg.bags.check import CheckedBag

CHECK = "Examples: wsi-mivpg bags check bags/ · wsi-mivpg bags check slide.h5 other.pt --json"
INFO = "Examples: wsi-mivpg bags info slide.h5 · wsi-mivpg bags info trident_processed/20x_256px_0px_overlap --json"
CONVERT = (
    "Examples: wsi-mivpg bags convert bags/ --to clam --out clam · "
    "wsi-mivpg bags convert slide.pt --to wsi-mivpg --out bags --encoder efficientnet-lite0 --mpp 0.5 --tile-px 224"
)

app = typer.Typer(
    help="Look into feature bags, check them, convert them.",
    epilog="Example: wsi-mivpg bags check bags/",
    no_args_is_help=True,
)

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Bags of any readable layout, or folders of them.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EncoderOption = Annotated[
    str | None, typer.Option(help="Which features (AtlasPatch), or what the encoder is called, where files are silent.")
]
SlideMppOption = Annotated[
    float | None, typer.Option(min=0.01, help="Microns per pixel of the slide's level 0, where files are silent.")
]


@app.command("check", epilog=CHECK)
def check(paths: Paths, as_json: Json = False) -> None:
    """Find damage, NaN, doubled or misplaced tiles and wrong widths; exit 3 with the list where there are any."""
    from wsi_mivpg.bags.check import check_bags
    from wsi_mivpg.encoders.registry import REGISTRY

    found, n_missing = _find(paths)
    checked = check_bags(found, {name: spec.dim for name, spec in REGISTRY.items()})
    bad = [one for one in checked if one.problems]
    data = [_describe(one.bag, one.path) | {"problems": one.problems, "warnings": one.warnings} for one in checked]
    rows = [[*_cells(one.bag), "; ".join(_verdicts(one)), one.path] for one in checked]
    table = console.table(("layout", "tiles", "dim", "encoder", "found", "bag"), rows)
    if not checked:
        raise typer.Exit(console.NOTHING_USABLE)
    console.result(data, f"{table}\n\n{len(checked) - len(bad)} of {len(checked)} bags are fine", as_json=as_json)
    if bad or n_missing:
        raise typer.Exit(console.SOME_FAILED)


@app.command("info", epilog=INFO)
def info(paths: Paths, encoder: EncoderOption = None, slide_mpp: SlideMppOption = None, as_json: Json = False) -> None:
    """Say what each bag is: whose layout, how many tiles, which encoder, what is known of resolution and places."""
    from wsi_mivpg.bags import FeatureBag

    found: list[dict[str, Any]] = []
    bags, n_failed = _find(paths)
    for path in bags:
        try:
            found.append(_describe(FeatureBag.open(path, encoder=encoder, slide_mpp=slide_mpp), path))
        except WsiMivpgError as problem:
            console.error(problem)
            n_failed += 1
    if found:
        console.result(found, "\n\n".join(_as_text(one) for one in found), as_json=as_json)
    console.finish(len(found), n_failed)


@app.command("convert", epilog=CONVERT)
def convert(
    paths: Paths,
    to: Annotated[str, typer.Option(help="wsi-mivpg, clam or trident.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    encoder: EncoderOption = None,
    mpp: Annotated[
        float | None, typer.Option(min=0.01, help="Microns per pixel of the tiles, where files are silent.")
    ] = None,
    tile_px: Annotated[
        int | None, typer.Option(min=1, help="Side of the tiles in pixels at --mpp, where files are silent.")
    ] = None,
    slide_mpp: SlideMppOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Write bags in another tool's layout, or other tools' bags in this one's; what is not known stays unknown."""
    from wsi_mivpg.bags import FeatureBag
    from wsi_mivpg.bags.convert import TARGETS, convert_bag
    from wsi_mivpg.encoders.registry import REGISTRY

    if to not in TARGETS:
        raise typer.BadParameter(f"{to!r} is not one of {', '.join(TARGETS)}", param_hint="--to")
    console.writable_folder(out)
    weights = REGISTRY[encoder].weights_sha256 if encoder in REGISTRY else ""
    done: list[dict[str, Any]] = []
    found, n_failed = _find(paths)
    for path in found:
        try:
            bag = FeatureBag.open(path, encoder=encoder, slide_mpp=slide_mpp, target_mpp=mpp, tile_px=tile_px)
            written = convert_bag(bag, out, to, weights, overwrite=overwrite)
            done.append({"bag": str(path), "written": [str(one) for one in written]})
        except WsiMivpgError as problem:
            console.error(problem)
            n_failed += 1
    if done:
        text = "\n".join(f"{one['bag']} -> {', '.join(one['written'])}" for one in done)
        console.result(done, text, as_json=as_json)
    console.finish(len(done), n_failed)


def _find(paths: list[Path]) -> tuple[list[Path], int]:
    """Return the bags among `paths` and how many paths hold none, which are said on stderr."""
    from wsi_mivpg.bags.check import find_bags

    found: list[Path] = []
    n_failed = 0
    for path in paths:
        try:
            found += find_bags([path])
        except WsiMivpgError as problem:
            console.error(problem)
            n_failed += 1
    return list(dict.fromkeys(found)), n_failed


def _describe(bag: "FeatureBag | None", path: Path) -> dict[str, Any]:
    if bag is None:
        return {"bag": str(path), "layout": None}
    return {
        "bag": str(path),
        "layout": bag.layout,
        "slide_id": bag.slide_id,
        "n_tiles": len(bag),
        "feature_dim": bag.feature_dim,
        "instances": bag.provenance.instances if bag.provenance else "tiles",
        "encoder": bag.encoder,
        "encoder_weights_sha256": bag.encoder_weights_sha256,
        "target_mpp": bag.target_mpp,
        "tile_px": bag.tile_px,
        "tile_size_l0": bag.tile_size_l0,
        "slide_mpp": bag.slide_mpp,
        "slide_size_px": bag.slide_size_px,
        "coords": "level-0 px" if bag.coords_known else "none" if bag.places is None else bag.places.unit,
    }


def _as_text(one: dict[str, Any]) -> str:
    lines = [f"  {name:<24}{'not stated' if value is None else value}" for name, value in one.items() if name != "bag"]
    return "\n".join([one["bag"], *lines])


def _cells(bag: "FeatureBag | None") -> list[object]:
    return ["?", "?", "?", "?"] if bag is None else [bag.layout, len(bag), bag.feature_dim, bag.encoder or "?"]


def _verdicts(one: "CheckedBag") -> list[str]:
    return [*one.problems, *(f"note: {warning}" for warning in one.warnings)] or ["fine"]
