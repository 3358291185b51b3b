"""One case of ``wsi-mivpg report``: the model reads its bag, and its page is drawn over its slide.

Here the halves meet: pictures come from the slide, text and attention from the model.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_mivpg.atomic import write_text
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import Generated, SlideCaptioner, read_case
from wsi_mivpg.errors import BagError
from wsi_mivpg.evidence import attention_rgba, attention_share_of_top, top_tiles
from wsi_mivpg.extraction import SlideInput, SlideSettings
from wsi_mivpg.reports import (
    Provenance,
    Report,
    SlidePanel,
    SlideSummary,
    TopTile,
    index_page,
    write_case,
    write_jsonl,
)

THUMBNAIL_PX = 1600
TOP_TILES = 6
FEW_TILES = 30

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class WrittenCase:
    """A report whose page is on disk, and its slide as uint8 (H, W, 3), if it has one."""

    report: Report
    thumbnail: Pixels | None


def describe_case(
    captioner: SlideCaptioner,
    model: str,
    bag_path: Path,
    slide: SlideInput | None,
    out: Path,
    seconds: float,
    settings: SlideSettings,
) -> WrittenCase:
    """Let the model read a bag and write the case's page into `out`.

    Args:
        captioner: the loaded model, in eval mode.
        model: its name, as the user gave it.
        bag_path: the bag.
        slide: its slide; without one the page has no picture.
        out: folder of the pages.
        seconds: time already spent on this case.
        settings: how its slide is opened and its tissue found.

    Raises:
        BagError: the bag cannot be read, has no tissue, or does not state what the model asks for.
        ModelError: the bag was made with another encoder, resolution or tile size than the model's.
        SlideError: the slide cannot be read.
    """
    started = time.perf_counter()
    bag = FeatureBag.open(bag_path)
    captioner.check_bag(bag)
    if not len(bag):
        raise BagError(f"{slide.shown if slide else bag_path}: no tissue found, so there is nothing to report on")
    generated = captioner.generate([read_case(bag.slide_id, [bag])])[0]
    report = _report(bag, generated, captioner, model, seconds + time.perf_counter() - started)
    panel = None if slide is None else _panel(slide, settings, bag, generated, report)
    write_case(out, report, [] if panel is None else [panel])
    return WrittenCase(report, None if panel is None else panel.thumbnail)


def write_overview(out: Path, written: list[WrittenCase], failures: dict[str, str]) -> None:
    """Write ``reports.jsonl`` and ``index.html`` for all cases of a run."""
    reports = [case.report for case in written]
    thumbnails = {case.report.case_id: case.thumbnail for case in written if case.thumbnail is not None}
    write_jsonl(out / "reports.jsonl", reports)
    write_text(out / "index.html", index_page(reports, failures, thumbnails))


def _report(bag: FeatureBag, generated: Generated, captioner: SlideCaptioner, model: str, seconds: float) -> Report:
    made = bag.provenance
    weights = _weights(generated)
    width_px, height_px = bag.slide_size_px or (None, None)
    return Report(
        case_id=bag.slide_id,
        text=generated.text,
        model={
            "name": model,
            "language_model": captioner.config.language_model,
            "demonstration": captioner.config.demonstration,
        },
        slides=(
            SlideSummary(
                slide_id=bag.slide_id,
                n_tiles=len(bag),
                mpp=bag.slide_mpp,
                mpp_source=made.mpp_source if made else None,
                target_mpp=bag.target_mpp,
                tile_px=bag.tile_px,
                reader=made.reader if made else None,
                width_px=width_px,
                height_px=height_px,
                top_share=attention_share_of_top(weights),
            ),
        ),
        top_tiles=_top_tiles(bag, weights),
        warnings=tuple(_warnings(bag, generated)),
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            encoder=bag.encoder,
            encoder_weights_sha256=bag.encoder_weights_sha256,
            versions={name: metadata.version(name) for name in ("wsi-mivpg", "torch", "transformers", "timm")},
            seconds=round(seconds, 2),
        ),
        mean_logprob=generated.mean_logprob,
    )


def _top_tiles(bag: FeatureBag, weights: npt.NDArray[np.float32]) -> tuple[TopTile, ...]:
    """Return the most attended tiles; none where the bag does not know their places."""
    side = bag.tile_size_l0
    if not bag.coords_known or side is None:
        return ()
    coords = bag.coords
    return tuple(
        TopTile(
            slide_id=bag.slide_id,
            x=int(coords[index, 0]),
            y=int(coords[index, 1]),
            size_l0_px=side,
            weight=float(weights[index]),
        )
        for index in top_tiles(weights, TOP_TILES)
    )


def _warnings(bag: FeatureBag, generated: Generated) -> list[str]:
    warnings = []
    if generated.hit_length_limit:
        warnings.append("The text reached the length limit and may be cut off.")
    if "empty" in generated.flags:
        warnings.append("The model wrote nothing.")
    if "repetition" in generated.flags:
        warnings.append("The text repeats itself and should not be relied on.")
    if len(bag) < FEW_TILES:
        warnings.append(f"Only {len(bag)} tiles of tissue were found; the report stands on little.")
    if lost := len(bag.unreadable):
        warnings.append(f"{lost} tiles of tissue could not be read from the slide and were left out.")
    if bag.provenance is None:
        warnings.append(f"The features come from another tool's file ({bag.layout}); how they were made is not known.")
    elif bag.provenance.mpp_source == "user":
        warnings.append(f"The resolution ({bag.slide_mpp:g} microns per pixel) was given by hand.")
    if not bag.coords_known:
        warnings.append("The tiles' places are not known, so that no tile can be shown.")
    return warnings


def _panel(
    given: SlideInput, settings: SlideSettings, bag: FeatureBag, generated: Generated, report: Report
) -> SlidePanel:
    made = bag.provenance
    if made is None:
        raise BagError(f"{bag.path}: a slide is drawn only with a bag that was extracted from it")
    with settings.open(given.source, given.mpp) as slide:
        thumbnail = slide.thumbnail(THUMBNAIL_PX)
        heatmap = attention_rgba(
            bag.coords,
            made.tile_size_l0,
            _weights(generated),
            slide.size_px,
            (thumbnail.shape[1], thumbnail.shape[0]),
        )
        return SlidePanel(
            slide_id=made.slide_id,
            thumbnail=thumbnail,
            slide_size_px=slide.size_px,
            outline_polygons=settings.find_tissue(slide, given.slide_id).polygons(),
            heatmap=heatmap,
            tile_images={
                (tile.x, tile.y): slide.read_region(tile.x, tile.y, made.tile_px, made.target_mpp)
                for tile in report.top_tiles
            },
        )


def _weights(generated: Generated) -> npt.NDArray[np.float32]:
    return np.asarray(generated.attention, dtype=np.float32)
