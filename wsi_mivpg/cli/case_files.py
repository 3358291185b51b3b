"""One case of ``wsi-mivpg report``: the model reads its bags, and its page is drawn over its slides.

Here the halves meet: pictures come from the slides, text and evidence from the model.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_mivpg.atomic import sha256_of, write_text
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import Generated, SlideCaptioner, read_case
from wsi_mivpg.cli import console
from wsi_mivpg.cli.case_evidence import ReadCase, find_evidence, top_tiles_of, with_evidence
from wsi_mivpg.cli.case_panels import Maps, panel, read_pictures
from wsi_mivpg.errors import BagError, ModelError, TextsError
from wsi_mivpg.evidence import SlideTiles, attention_share_of_top, slides_of
from wsi_mivpg.extraction import SlideInput, SlideSettings
from wsi_mivpg.reports import (
    Provenance,
    Report,
    SlidePanel,
    SlideSummary,
    file_name,
    index_page,
    write_case,
    write_json,
    write_jsonl,
)

FEW_TILES = 30

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CaseInput:
    """What one report is written about.

    Attributes:
        case_id: its name.
        bags: the files of its slides' features.
        slides: by id, those of its slides that are at hand; the others have no picture.
        seconds: time already spent on it.
    """

    case_id: str
    bags: Sequence[Path]
    slides: Mapping[str, SlideInput] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def shown(self) -> str:
        """What messages call it: its slides, or else its bags."""
        return ", ".join([slide.shown for slide in self.slides.values()] or [str(bag) for bag in self.bags])


@dataclass(frozen=True, eq=False)
class WrittenCase:
    """A report whose page is on disk, and its first slide as uint8 (H, W, 3), if it has one."""

    report: Report
    thumbnail: Pixels | None


def describe_case(
    captioner: SlideCaptioner,
    model: str,
    given: CaseInput,
    out: Path,
    settings: SlideSettings,
    method: str | None,
) -> WrittenCase:
    """Let the model read a case and write its page and its JSON, and what supports its sentences, into `out`.

    Args:
        captioner: the loaded model, in eval mode.
        model: its name, as the user gave it.
        given: the case.
        out: folder of the pages.
        settings: how its slides are opened and their tissue found.
        method: how tiles are weighed for each sentence; None for not at all.

    Raises:
        BagError: a bag cannot be read, the case has no tissue, or a bag does not state what the model asks for.
        ModelError: a bag was made with another encoder, resolution or tile size than the model's.
        SlideError: a slide cannot be read.
    """
    started = time.perf_counter()
    bags = [FeatureBag.open(path) for path in given.bags]
    for bag in bags:
        captioner.check_bag(bag)
    if not any(map(len, bags)):
        raise BagError(f"{given.shown}: no tissue found, so there is nothing to report on")
    read = read_case(given.case_id, bags)
    generated = captioner.generate([read])[0]
    case = ReadCase(read, slides_of(bags), generated.text, generated.token_ids, generated.token_logprobs.tolist())
    seconds = given.seconds + time.perf_counter() - started
    report = _report(given, bags, case, generated, captioner, model, out, seconds)
    maps = Maps(np.asarray(generated.attention, np.float32))
    if method is not None and generated.text:
        try:
            evidence = find_evidence(captioner, case, model, [method])
            report = with_evidence(report, captioner, case, evidence, method, out)
            weights = evidence.weights[method]
            maps = Maps(weights[-1], list(weights[:-1]))
        except (ModelError, TextsError) as problem:  # the report stands without it
            console.note(f"warning: {given.case_id}: no evidence: {problem}")
            report = report.model_copy(update={"warnings": (*report.warnings, f"There is no evidence: {problem}.")})
    panels = _panels(given, case, report, maps, settings)
    write_case(out, report, panels)
    write_json(json_path(out, report.case_id), report)
    return WrittenCase(report, next((one.thumbnail for one in panels if one.thumbnail is not None), None))


def json_path(out: Path, case_id: str) -> Path:
    """Return where a case's report lies as JSON: beside its page, of the same name."""
    return out / Path(file_name(case_id)).with_suffix(".json")


def write_overview(out: Path, written: list[WrittenCase], failures: dict[str, str]) -> None:
    """Write ``reports.jsonl`` and ``index.html`` for all cases of a run."""
    reports = [case.report for case in written]
    thumbnails = {case.report.case_id: case.thumbnail for case in written if case.thumbnail is not None}
    write_jsonl(out / "reports.jsonl", reports)
    write_text(out / "index.html", index_page(reports, failures, thumbnails))


def _report(
    given: CaseInput,
    bags: Sequence[FeatureBag],
    case: ReadCase,
    generated: Generated,
    captioner: SlideCaptioner,
    model: str,
    out: Path,
    seconds: float,
) -> Report:
    attention = np.asarray(generated.attention, np.float32)
    tiles = {slide.slide_id: slide for slide in case.slides}
    return Report(
        case_id=given.case_id,
        text=generated.text,
        token_ids=generated.token_ids,
        model={
            "name": model,
            "language_model": captioner.config.language_model,
            "demonstration": captioner.config.demonstration,
        },
        slides=tuple(
            _summary(bag, given.slides.get(bag.slide_id), tiles.get(bag.slide_id), attention, out) for bag in bags
        ),
        top_tiles=top_tiles_of(case.slides, attention),
        warnings=tuple(_warnings(bags, generated)),
        provenance=_provenance(bags, seconds),
        mean_logprob=generated.mean_logprob,
    )


def _summary(
    bag: FeatureBag, slide: SlideInput | None, tiles: SlideTiles | None, attention: npt.NDArray[np.float32], out: Path
) -> SlideSummary:
    made = bag.provenance
    width_px, height_px = bag.slide_size_px or (None, None)
    source = None if slide is None else slide.source
    return SlideSummary(
        slide_id=bag.slide_id,
        n_tiles=len(bag),
        mpp=bag.slide_mpp,
        mpp_source=made.mpp_source if made else None,
        path=str(source.resolve()) if isinstance(source, Path) else slide.shown if slide else None,
        bag=_named_from(out, bag.path),
        bag_sha256=sha256_of(bag.path),
        target_mpp=bag.target_mpp,
        tile_px=bag.tile_px,
        reader=made.reader if made else None,
        width_px=width_px,
        height_px=height_px,
        top_share=None if tiles is None else attention_share_of_top(tiles.of(attention)),
    )


def _named_from(folder: Path, file: Path) -> str:
    """Return a file's path relative to a folder that holds it, and otherwise whole."""
    file, folder = file.resolve(), folder.resolve()
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _provenance(bags: Sequence[FeatureBag], seconds: float) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        encoder=bags[0].encoder,
        encoder_weights_sha256=bags[0].encoder_weights_sha256,
        versions={name: metadata.version(name) for name in ("wsi-mivpg", "torch", "transformers", "timm")},
        seconds=round(seconds, 2),
    )


def _warnings(bags: Sequence[FeatureBag], generated: Generated) -> list[str]:
    warnings = []
    if generated.hit_length_limit:
        warnings.append("The text reached the length limit and may be cut off.")
    if "empty" in generated.flags:
        warnings.append("The model wrote nothing.")
    if "repetition" in generated.flags:
        warnings.append("The text repeats itself and should not be relied on.")
    if (count := sum(map(len, bags))) < FEW_TILES:
        warnings.append(f"Only {count} tiles of tissue were found; the report stands on little.")
    if lost := sum(len(bag.unreadable) for bag in bags):
        warnings.append(f"{lost} tiles of tissue could not be read from the slide and were left out.")
    for bag in bags:
        of = f"Slide {bag.slide_id}: " if len(bags) > 1 else ""
        if bag.provenance is None:
            warnings.append(
                f"{of}The features come from another tool's file ({bag.layout}); how they were made is not known."
            )
        elif bag.provenance.mpp_source == "user":
            warnings.append(f"{of}The resolution ({bag.slide_mpp:g} microns per pixel) was given by hand.")
        if not bag.coords_known:
            warnings.append(f"{of}The tiles' places are not known, so that no tile can be shown.")
    return warnings


def _panels(given: CaseInput, case: ReadCase, report: Report, maps: Maps, settings: SlideSettings) -> list[SlidePanel]:
    panels = []
    for tiles in case.slides:
        summary = next(slide for slide in report.slides if slide.slide_id == tiles.slide_id)
        source, pictures = given.slides.get(tiles.slide_id), None
        if source is not None:
            with settings.open(source.source, source.mpp) as slide:
                pictures = read_pictures(slide, settings, summary, report)
        panels.append(panel(tiles, maps, pictures))
    return [one for one in panels if one is not None]
