"""Slides to bags: read tiles ahead in threads, encode in batches, write, resume, and report what failed.

The one encode loop of the package. What is tissue, where tiles lie and how they are encoded is not
decided here.
"""

import csv
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

import wsi_mivpg
from wsi_mivpg.atomic import canonical_hash, replaced
from wsi_mivpg.bags import SCHEMA, BagProvenance, FeatureBag, write_bag
from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.errors import BagError, ResolutionError, SlideError, WsiMivpgError
from wsi_mivpg.extraction.finding import find_slides, unique_ids
from wsi_mivpg.extraction.settings import SlideSettings
from wsi_mivpg.slides import Slide, stream_regions
from wsi_mivpg.tiling import TilePlan, plan_tiles

# What `settings_hash` leaves out: it does not decide the features.
_NOT_SETTINGS = frozenset(
    {"slide_id", "slide_path", "case_id", "plan_digest", "settings_hash", "version", "torch_version"}
)
DEFAULT_SETTINGS = SlideSettings()


@dataclass(frozen=True)
class Progress:
    """How far one slide is: `done` of `total` tiles, slide `slide_number` of `n_slides` (from 1)."""

    slide_id: str
    done: int
    total: int
    slide_number: int
    n_slides: int


@dataclass(frozen=True)
class ExtractionResult:
    """One slide's bag. `skipped` is true where a bag with the same settings was already there.

    `n_unreadable` tiles were planned but could not be decoded; the bag names them.
    """

    slide_id: str
    bag_path: Path
    n_tiles: int
    seconds: float
    skipped: bool
    n_unreadable: int


@dataclass(frozen=True)
class Failure:
    """One slide that could not be extracted, and why."""

    slide: Path
    error: str


@dataclass(frozen=True)
class ExtractionSummary:
    """All that became of a run, in the order of the inputs."""

    results: tuple[ExtractionResult, ...]
    failures: tuple[Failure, ...]


def extract_slide(
    path: Path | str,
    encoder: TileEncoder,
    out_dir: Path | str,
    *,
    settings: SlideSettings = DEFAULT_SETTINGS,
    batch_size: int = 32,
    overwrite: bool = False,
    on_tiles: Callable[[int, int], None] | None = None,
) -> ExtractionResult:
    """Extract one slide into `out_dir/<slide id>.h5`.

    A complete bag made with the same settings is kept. A slide without tissue gives an empty bag. Tiles that cannot
    be decoded are left out and named in the bag.

    Args:
        path: the slide.
        encoder: from `wsi_mivpg.encoders.load.load_encoder`.
        out_dir: folder of bags, made if absent.
        settings: how slides are opened and tissue is found.
        batch_size: tiles encoded at once.
        overwrite: replace a bag that was made with other settings.
        on_tiles: called with (tiles done, tiles in total), first with (0, total).

    Raises:
        SlideError, ResolutionError: the slide cannot be read at the encoder's resolution, or none of its tiles can.
        BagError: a bag made with other settings, or something that is no bag, is in the way.
        OutputError: `out_dir` cannot be written.
    """
    started = time.monotonic()
    path = Path(path)
    bag_path = Path(out_dir) / f"{path.stem}.h5"
    with settings.open(path) as slide:
        provenance = _provenance(slide, encoder, settings)
        if not overwrite and bag_path.exists():
            bag = _same_bag(bag_path, provenance)
            seconds = time.monotonic() - started
            return ExtractionResult(path.stem, bag_path, len(bag), seconds, True, len(bag.unreadable))
        plan = _plan(slide, encoder, settings)
        features, is_read = _encoded(slide, plan, encoder, batch_size, on_tiles)
    lost = plan.coords[~is_read]
    write_bag(
        bag_path,
        features[is_read],
        plan.coords[is_read],
        plan.tissue_fraction[is_read],
        dataclasses.replace(provenance, plan_digest=plan.digest),
        lost,
        plan.grid[is_read],
    )
    seconds = time.monotonic() - started
    return ExtractionResult(path.stem, bag_path, int(is_read.sum()), seconds, skipped=False, n_unreadable=len(lost))


def _encoded(
    slide: Slide, plan: TilePlan, encoder: TileEncoder, batch_size: int, on_tiles: Callable[[int, int], None] | None
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """Return features (N, D) of all planned tiles, and bool (N,) which of them could be read.

    Raises:
        SlideError: none could.
    """
    features = np.empty((len(plan), encoder.spec.dim), dtype=np.float16)
    is_read = np.ones(len(plan), dtype=np.bool_)
    last_failure = ""
    if on_tiles is not None:
        on_tiles(0, len(plan))
    for batch in stream_regions(slide, plan.coords, plan.tile_px, plan.target_mpp, batch_size=batch_size):
        end = batch.start + len(batch)
        features[batch.start : end] = encoder.encode(batch.pixels)
        is_read[list(batch.failures)] = False
        last_failure = next(iter(batch.failures.values()), last_failure)
        if on_tiles is not None:
            on_tiles(end, len(plan))
    if len(plan) and not is_read.any():
        raise SlideError(f"none of the {len(plan)} tiles could be read; the last error: {last_failure}")
    return features, is_read


def extract_many(
    inputs: list[Path],
    out_dir: Path | str,
    encoder: TileEncoder,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    settings: SlideSettings = DEFAULT_SETTINGS,
    batch_size: int = 32,
    overwrite: bool = False,
) -> ExtractionSummary:
    """Extract all slides among `inputs` (files and folders); one bad slide never stops the others.

    Failures are also written to `out_dir/failures.csv` (columns slide, error); a run without failures removes
    that file.

    Raises:
        SlideError: a path does not exist, a folder holds no slide, or two slides have the same name.
        OutputError: `out_dir` cannot be written.
    """
    slides = unique_ids(find_slides(inputs))
    results: list[ExtractionResult] = []
    failures: list[Failure] = []
    for number, (slide_id, path) in enumerate(slides.items(), start=1):

        def on_tiles(done: int, total: int, slide_id: str = slide_id, number: int = number) -> None:
            if on_progress is not None:
                on_progress(Progress(slide_id, done, total, number, len(slides)))

        try:
            result = extract_slide(
                path,
                encoder,
                out_dir,
                settings=settings,
                batch_size=batch_size,
                overwrite=overwrite,
                on_tiles=on_tiles,
            )
            results.append(result)
        except WsiMivpgError as error:
            failures.append(Failure(path, str(error)))
    write_failures(Path(out_dir) / "failures.csv", failures)
    return ExtractionSummary(tuple(results), tuple(failures))


def write_failures(path: Path, failures: list[Failure]) -> None:
    """Write failures as CSV (slide, error), or remove the file of an earlier run where there are none."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["slide", "error"])
        writer.writerows([str(failure.slide), failure.error] for failure in failures)


def _plan(slide: Slide, encoder: TileEncoder, settings: SlideSettings) -> TilePlan:
    tissue = settings.find_tissue(slide)
    try:
        return plan_tiles(
            slide.size_px,
            slide.mpp,
            target_mpp=encoder.spec.mpp,
            tile_px=encoder.spec.tile_px,
            coverage=tissue.coverage,
            min_tissue=settings.min_tissue,
        )
    except ResolutionError as error:
        raise ResolutionError(f"{slide.source}: {error}") from error


def _provenance(slide: Slide, encoder: TileEncoder, settings: SlideSettings) -> BagProvenance:
    spec = encoder.spec
    unhashed = BagProvenance(
        slide_id=slide.path.stem,
        slide_path=slide.path.name,
        slide_fingerprint=slide.fingerprint(),
        slide_width_px=slide.size_px[0],
        slide_height_px=slide.size_px[1],
        slide_mpp=slide.mpp,
        mpp_source=slide.mpp_source,
        reader=slide.reader,
        target_mpp=spec.mpp,
        tile_px=spec.tile_px,
        stride_px=spec.tile_px,
        tile_size_l0=spec.tile_px * spec.mpp / slide.mpp,
        min_tissue=settings.min_tissue,
        tissue_method=settings.tissue_name(slide.path.stem),
        encoder=spec.name,
        encoder_weights_sha256=spec.weights_sha256,
        feature_dim=spec.dim,
        precision="fp32",
        plan_digest="",
        coords_known=True,
        case_id="",
        settings_hash="",
        version=wsi_mivpg.__version__,
        torch_version=metadata.version("torch"),
    )
    settings_hash = canonical_hash({"schema": SCHEMA, **_settings(unhashed)})
    return dataclasses.replace(unhashed, settings_hash=settings_hash)


def _settings(provenance: BagProvenance) -> dict[str, object]:
    fields = dataclasses.asdict(provenance)
    return {name: value for name, value in fields.items() if name not in _NOT_SETTINGS}


def _same_bag(bag_path: Path, wanted: BagProvenance) -> FeatureBag:
    """Return a bag made with the wanted settings; raise BagError naming what differs."""
    bag = FeatureBag.open(bag_path)
    made = bag.provenance
    if made is None:
        raise BagError(
            f"{bag_path}: another tool's file ({bag.layout}) is in the way; pass --overwrite, or another --out"
        )
    if made.settings_hash == wanted.settings_hash:
        return bag
    old, new = _settings(made), _settings(wanted)
    differences = [f"{name} {old[name]} there, {new[name]} now" for name in new if old[name] != new[name]]
    raise BagError(
        f"{bag_path}: made with other settings ({'; '.join(differences) or 'another version'}); "
        "pass --overwrite, or another --out"
    )
