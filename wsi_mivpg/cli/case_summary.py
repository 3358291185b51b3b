"""What a report says of its case before anything is tested: text, slides, model, warnings.

From bags and from what was written; it opens no slide.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import Generated, SlideCaptioner
from wsi_mivpg.cli.case_evidence import top_tiles_of
from wsi_mivpg.cli.case_texts import Asked, CaseText
from wsi_mivpg.evidence import attention_share_of_top
from wsi_mivpg.prompting import parse_sections
from wsi_mivpg.reports import Provenance, Report, SlideSummary, dicom_instance

FEW_TILES = 30
_HE = {"he", "hematoxylineosin", "haematoxylineosin", "hematoxylinandeosin", "haematoxylinandeosin"}


def summarised(captioner: SlideCaptioner, text: CaseText, asked: Asked) -> Report:
    """Return the report of a case as the model wrote it."""
    case, generated = text.case, text.generated
    attention = np.asarray(generated.attention, np.float32)
    return Report(
        case_id=case.given.case_id,
        text=generated.text,
        token_ids=generated.token_ids,
        model={
            "name": asked.model,
            "language_model": captioner.config.language_model,
            "demonstration": captioner.config.demonstration,
        },
        slides=_slides(text, attention, asked.out),
        top_tiles=top_tiles_of(text.read.slides, attention),
        prompt=asked.prompt,
        fields=text.fields,
        consensus=text.drawn.consensus,
        forced=case.forced,
        settings_hash=case.settings_hash,
        warnings=(*_warnings(captioner, text), *_of_sections(text.generated.text, asked.sections)),
        provenance=_provenance(case.bags, text.seconds),
        mean_logprob=generated.mean_logprob,
    )


def _slides(text: CaseText, attention: npt.NDArray[np.float32], out: Path) -> tuple[SlideSummary, ...]:
    read = {tiles.slide_id: tiles for tiles in text.read.slides}
    summaries = []
    for given, bag, sha256 in zip(text.case.given.slides, text.case.bags, text.case.sha256s, strict=True):
        made, tiles = bag.provenance, read.get(bag.slide_id)
        width_px, height_px = bag.slide_size_px or (None, None)
        source = None if given.slide is None else given.slide.source
        summaries.append(
            SlideSummary(
                slide_id=bag.slide_id,
                n_tiles=len(bag),
                mpp=bag.slide_mpp,
                mpp_source=made.mpp_source if made else None,
                path=str(source.resolve()) if isinstance(source, Path) else given.slide.shown if given.slide else None,
                bag=_named_from(out, bag.path),
                bag_sha256=sha256,
                target_mpp=bag.target_mpp,
                tile_px=bag.tile_px,
                reader=made.reader if made else None,
                width_px=width_px,
                height_px=height_px,
                top_share=None if tiles is None else attention_share_of_top(tiles.of(attention)),
                n_read=0 if tiles is None else len(tiles),
                contribution=0.0 if tiles is None else float(tiles.of(attention).sum(dtype=np.float64)),
                stain=given.stain,
                dicom=dicom_instance(made),
            )
        )
    return tuple(summaries)


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


def _warnings(captioner: SlideCaptioner, text: CaseText) -> list[str]:
    bags = text.case.bags
    warnings = [f"Not as the model was trained, and forced: {one}." for one in text.case.forced]
    warnings += _of_stains(captioner.config.stain, text)
    warnings += _of_text(text.generated)
    count, n_read = sum(map(len, bags)), len(text.read.bags)
    if count < FEW_TILES:
        warnings.append(f"Only {count} tiles of tissue were found; the report stands on little.")
    if n_read < count:
        warnings.append(
            f"The model reads at most {captioner.config.max_instances} tiles of a case: {n_read} of {count} were "
            "drawn, a fair share of each slide."
        )
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
        if not len(bag) and len(bags) > 1:
            warnings.append(f"{of}No tissue was found, so the report does not stand on this slide.")
    return warnings


def _of_text(generated: Generated) -> list[str]:
    warnings = []
    if generated.hit_length_limit:
        warnings.append("The text reached the length limit and may be cut off.")
    if "empty" in generated.flags:
        warnings.append("The model wrote nothing.")
    if "repetition" in generated.flags:
        warnings.append("The text repeats itself and should not be relied on.")
    return warnings


def _of_sections(text: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    missing = parse_sections(text, names).missing
    return [f"Sections that were asked for and are not there: {', '.join(missing)}."] if missing else []


def _of_stains(trained_on: str | None, text: CaseText) -> list[str]:
    """Name the slides of other stains than the model was trained on, where a manifest names stains."""
    pairs = zip(text.case.bags, text.case.given.slides, strict=True)
    if trained_on is None:
        return []
    return [
        f"Slide {bag.slide_id} is stained with {given.stain}; the model was trained on {trained_on}."
        for bag, given in pairs
        if given.stain is not None and _stain(given.stain) != _stain(trained_on)
    ]


def _stain(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return "he" if plain in _HE else plain
