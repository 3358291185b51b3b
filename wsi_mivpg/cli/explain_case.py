"""One case of ``wsi-mivpg explain``: its report is read back, its model reads its bags again, files are written.

Whatever became another since the report was written is refused: an explanation of something else is worse than none.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wsi_mivpg.atomic import sha256_of, write_text
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner, forced_differences, report_logprobs
from wsi_mivpg.captioner.generation import see as see_case
from wsi_mivpg.cli import console
from wsi_mivpg.cli.case_evidence import (
    ReadCase,
    evidence_path,
    find_evidence,
    sentence_targets,
    with_earlier,
    with_evidence,
)
from wsi_mivpg.cli.case_panels import Maps, SlidePictures, panel, read_pictures
from wsi_mivpg.cli.explain_files import Seen, see, write_explained
from wsi_mivpg.errors import EvidenceError, SlideError, WsiMivpgError
from wsi_mivpg.evidence import Evidence, Randomised, label_randomisation, model_randomisation, slides_of
from wsi_mivpg.extraction import SlideInput, SlideSettings
from wsi_mivpg.reports import Report, SlideSummary, file_name, read_json, write_case, write_json
from wsi_mivpg.reports.support import map_method

_SAME_LOGPROB = 0.05
"""Nats per token by which the model may differ from what the report says; other devices and batches round otherwise."""
_OTHER_REPORTS = 5


@dataclass(frozen=True)
class Asked:
    """What is wanted of each case.

    Attributes:
        methods: how tiles are weighed; the first is what the page shows.
        slides: by slide id, slides that lie elsewhere now.
        settings: how slides are opened and their tissue found.
        sanity: whether maps are also drawn for random weights and other reports.
    """

    methods: Sequence[str]
    slides: Mapping[str, SlideInput] = field(default_factory=dict)
    settings: SlideSettings = field(default_factory=SlideSettings)
    sanity: bool = False


def explain_case(captioner: SlideCaptioner, path: Path, report: Report, asked: Asked) -> dict[str, Any]:
    """Explain one report: HDF5, pictures and GeoJSON below its folder, its JSON and its page; return what was found.

    Args:
        captioner: the model that wrote it, in eval mode.
        path: the report's JSON.
        report: what is in it.
        asked: what is wanted.

    Raises:
        EvidenceError: the report cannot be explained, or a bag or the model is not the one it was written with.
        WsiMivpgError: a bag or a slide that was named cannot be read.
    """
    with captioner.asked(report.prompt):
        return _explained(captioner, path, report, asked)


def _explained(captioner: SlideCaptioner, path: Path, report: Report, asked: Asked) -> dict[str, Any]:
    """Do what `explain_case` does, by a model that is asked what the report was."""
    out = path.parent
    bags = [_same_bag(summary, out, path) for summary in report.slides]
    for bag in bags:
        if report.forced:
            forced_differences(captioner.config, bag)
        else:
            captioner.check_bag(bag)
    case = _read_again(captioner, bags, report, path)
    found = find_evidence(captioner, case, str(report.model.get("name")), asked.methods)
    evidence = with_earlier(found, out / evidence_path(report.case_id))
    folder = out / "explain" / Path(file_name(report.case_id)).stem
    methods = list(found.weights)
    report = with_evidence(report, captioner, case, evidence, methods[0], out)
    pictures, seen = _read_slides(bags, report, found, asked)
    texts = [*(sentence.shown_text for sentence in report.sentences), report.shown_text]
    files = write_explained(folder, found, seen, texts)
    write_json(path, report)
    files += _write_page(out, report, evidence, pictures)
    result = _result(report, out, folder, files)
    if asked.sanity:
        result["sanity"] = _sanity(captioner, case, path, methods)
        write_text(folder / "sanity.json", json.dumps(result["sanity"], indent=1) + "\n")
    return result


def read_report(path: Path) -> Report:
    """Read a report's JSON and see that there is something to explain.

    Raises:
        TextsError: it is no report.
        EvidenceError: it has no text, or was written before reports could be explained.
    """
    report = read_json(path)
    if not report.text:
        raise EvidenceError(f"{path}: its text is empty, so there is nothing to explain")
    if not report.token_ids or any(summary.bag is None for summary in report.slides) or not report.slides:
        raise EvidenceError(
            f"{path}: it does not say its tokens and bags, which an older version left out; write it again with "
            "`wsi-mivpg report`"
        )
    return report


def _same_bag(summary: SlideSummary, out: Path, path: Path) -> FeatureBag:
    """Open the bag that a slide was read from."""
    bag = FeatureBag.open(out / str(summary.bag))
    changed = len(bag) != summary.n_tiles
    if changed or (summary.bag_sha256 is not None and sha256_of(bag.path) != summary.bag_sha256):
        how = f"it has {len(bag)} tiles, and had {summary.n_tiles}" if changed else "its content is another"
        raise EvidenceError(
            f"{bag.path}: the bag was made again since {path} was written ({how}); write the report again with "
            "`wsi-mivpg report`"
        )
    return bag


def _read_again(captioner: SlideCaptioner, bags: Sequence[FeatureBag], report: Report, path: Path) -> ReadCase:
    """Let the model read the case, and see that it gives the text the probability that its writer gave it."""
    read = captioner.read(report.case_id, bags)
    with torch.no_grad():
        visual = see_case(captioner, read).visual
        logprobs = report_logprobs(captioner, visual[None], report.token_ids)[0].double().cpu()
    mean = float(logprobs.mean())
    if report.mean_logprob is not None and not math.isclose(mean, report.mean_logprob, abs_tol=_SAME_LOGPROB):
        raise EvidenceError(
            f"{path}: the model gives its text {mean:.3f} nats per token, but the model that wrote it gave it "
            f"{report.mean_logprob:.3f}; name that one with --model, or write the report again"
        )
    slides = slides_of(bags, None if read.rows is None else read.rows.numpy())
    return ReadCase(read, slides, report.text, report.token_ids, logprobs.tolist())


def _read_slides(
    bags: Sequence[FeatureBag], report: Report, evidence: Evidence, asked: Asked
) -> tuple[dict[str, SlidePictures | None], dict[str, Seen]]:
    """Read the slides that can be read; None for one that is gone and of which the page has pictures."""
    pictures: dict[str, SlidePictures | None] = {}
    seen: dict[str, Seen] = {}
    bag_of = {bag.slide_id: bag for bag in bags}
    for tiles in evidence.slides:
        summary = next(one for one in report.slides if one.slide_id == tiles.slide_id)
        named = asked.slides.get(tiles.slide_id)
        given = named or _as_reported(summary)
        if given is None:
            continue
        try:
            with asked.settings.open(given.source, given.mpp) as slide:
                made = bag_of[tiles.slide_id].provenance
                if made is not None and slide.fingerprint() != made.slide_fingerprint:
                    raise SlideError(
                        f"{slide.source}: not the slide that {bag_of[tiles.slide_id].path} was made from; name "
                        "that one with --slide"
                    )
                read = read_pictures(slide, asked.settings, summary, report)
                seen[tiles.slide_id] = see(slide, read.thumbnail, tiles, evidence)
                pictures[tiles.slide_id] = read
        except WsiMivpgError as problem:
            if named is not None:
                raise
            console.note(f"warning: maps of {tiles.slide_id} lie on white: {problem}; if it was moved, say --slide")
            pictures[tiles.slide_id] = None
    return pictures, seen


def _as_reported(summary: SlideSummary) -> SlideInput | None:
    if summary.path is None:
        return None
    source = summary.path if "://" in summary.path else Path(summary.path)
    return SlideInput(summary.slide_id, source, mpp=summary.mpp if summary.mpp_source == "user" else None)


def _write_page(
    out: Path, report: Report, evidence: Evidence, pictures: Mapping[str, SlidePictures | None]
) -> list[Path]:
    """Draw the case's page again, unless it would lose the pictures of a slide that is gone."""
    page = out / file_name(report.case_id)
    if None in pictures.values() and page.exists():
        console.note(f"warning: {page} stays as it was, for the pictures of the slide in it")
        return []
    weights = evidence.weights[map_method(report)]
    maps = Maps(weights[-1], list(weights[:-1]))
    panels = [panel(tiles, maps, pictures.get(tiles.slide_id)) for tiles in evidence.slides]
    return [write_case(out, report, [one for one in panels if one is not None])]


def _sanity(captioner: SlideCaptioner, case: ReadCase, path: Path, methods: Sequence[str]) -> dict[str, Any]:
    """Return, by method, how far maps stay the same when the model's weights or the report are others."""
    targets = sentence_targets(captioner, case)
    others = _other_reports(path, case.text)
    found: dict[str, Any] = {}
    for method in methods:
        of_weights = model_randomisation(captioner, case.bags, case.token_ids, targets, method)
        of_texts = label_randomisation(captioner, case.bags, case.token_ids, targets, others, method) if others else []
        found[method] = {"weights": _shown(of_weights), "reports": _shown(of_texts)}
    return found


def _shown(checks: Sequence[Randomised]) -> list[dict[str, Any]]:
    return [
        {"what": one.what, "correlations": [None if math.isnan(r) else round(r, 4) for r in one.correlations]}
        for one in checks
    ]


def _other_reports(path: Path, text: str) -> list[tuple[str, Sequence[int]]]:
    """Return the tokens of a few reports of other words in the same folder."""
    found: dict[str, tuple[str, Sequence[int]]] = {}
    for file in sorted(path.parent.glob("*.json")):
        try:
            report = read_json(file)
        except WsiMivpgError:
            continue
        if report.text not in ("", text) and report.token_ids and len(found) < _OTHER_REPORTS:
            found.setdefault(report.text, (report.case_id, report.token_ids))
    return list(found.values())


def _result(report: Report, out: Path, folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "case_id": report.case_id,
        "method": map_method(report),
        "sentences": [
            {
                "text": sentence.shown_text,
                "better_than_random": figures.better_than_random if figures else None,
                "deletion": figures.deletion if figures else None,
                "insertion": figures.insertion if figures else None,
                "top_tiles": [tile.model_dump() for tile in sentence.top_tiles],
            }
            for sentence in report.sentences
            for figures in [sentence.faithfulness]
        ],
        "evidence": str(out / str(report.evidence)),
        "folder": str(folder),
        "files": len(files),
    }
