"""Which tiles support which sentence of a case, tested, as `report` and `explain` store and show it.

Puts the evidence room's maps into the reports room's shapes; pictures are drawn elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.cli import console
from wsi_mivpg.errors import EvidenceError, ModelError
from wsi_mivpg.evidence import (
    Curves,
    Evidence,
    SlideTiles,
    Span,
    attribute,
    faithfulness,
    read_evidence,
    sentence_spans,
    supporting_tiles,
    write_evidence,
)
from wsi_mivpg.reports import Faithfulness, Report, Sentence, TopTile, file_name

TOP_TILES = 6
_TRUST = ("confidence", "assessable", "alternatives", "unverified_numbers")
"""What a sentence keeps when its tiles are weighed again."""
_NO_BETTER = "no better than random tiles."
_LEAST_TO_TEST = 2  # tiles: of one, none can be left out


@dataclass(frozen=True, eq=False)
class ReadCase:
    """A case as the model read it, and what was written about it.

    Attributes:
        bags: its instances.
        slides: where they lie.
        text: of the report.
        token_ids: of the report.
        token_logprobs: float (T,), natural logarithm.
    """

    bags: CaseBags
    slides: tuple[SlideTiles, ...]
    text: str
    token_ids: tuple[int, ...]
    token_logprobs: Sequence[float]


def find_evidence(captioner: SlideCaptioner, case: ReadCase, model: str, methods: Sequence[str]) -> Evidence:
    """Weigh all tiles for each sentence and for the report by some methods, and test the maps.

    Of several methods, one that cannot be used on this model or case is left out with a note.

    Raises:
        ModelError: no method can be used.
        TextsError: the tokens do not say the text.
    """
    spans = sentence_spans(captioner.tokenizer, case.token_ids, case.text)
    targets = sentence_targets(captioner, case)
    maps: dict[str, torch.Tensor] = {}
    for method in methods:
        try:
            maps[method] = attribute(captioner, case.bags, case.token_ids, targets, method)
        except ModelError as problem:
            if not maps and method == methods[-1]:
                raise
            console.note(f"warning: {case.bags.case_id}: no map by {method}: {problem}")
    curves: dict[str, list[dict[str, npt.NDArray[np.float64]]]] = {}
    if len(case.bags) >= _LEAST_TO_TEST:
        stacked = torch.cat(list(maps.values()))
        tested = faithfulness(captioner, case.bags, case.token_ids, targets * len(maps), stacked)
        arrays = [{name: np.asarray(values, np.float64) for name, values in asdict(one).items()} for one in tested]
        ends = range(0, len(arrays) + 1, len(targets))
        curves = {method: arrays[first:last] for method, (first, last) in zip(maps, pairwise(ends), strict=True)}
    return Evidence(
        case_id=case.bags.case_id,
        text=case.text,
        model=model,
        slides=case.slides,
        sentences=tuple((span.start, span.end) for span in spans),
        weights={method: weights.numpy() for method, weights in maps.items()},
        curves=curves,
    )


def sentence_targets(captioner: SlideCaptioner, case: ReadCase) -> list[range]:
    """Return the places of each sentence's tokens, then those of the whole report."""
    spans = sentence_spans(captioner.tokenizer, case.token_ids, case.text)
    return [*map(_tokens_of, spans), range(len(case.token_ids))]


def with_earlier(evidence: Evidence, path: Path) -> Evidence:
    """Add what other methods found of the same report and tiles, if there is a file of it."""
    try:
        earlier = read_evidence(path)
    except EvidenceError:
        return evidence
    same = (earlier.text, earlier.sentences, len(earlier)) == (evidence.text, evidence.sentences, len(evidence))
    if not same or earlier.model != evidence.model or (earlier.coords != evidence.coords).any():
        return evidence
    return replace(
        evidence,
        weights={**earlier.weights, **evidence.weights},
        curves={**earlier.curves, **evidence.curves},
    )


def with_evidence(
    report: Report, captioner: SlideCaptioner, case: ReadCase, evidence: Evidence, method: str, out: Path
) -> Report:
    """Store a case's evidence below `out`, and return its report with sentences, top tiles and a warning in need.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = out / evidence_path(report.case_id)
    write_evidence(path, evidence)
    weights = evidence.weights[method]
    tested = evidence.curves.get(method)
    spans = sentence_spans(captioner.tokenizer, case.token_ids, case.text)
    logprobs = np.asarray(case.token_logprobs, np.float64)
    trusted = {(one.start, one.end): {name: getattr(one, name) for name in _TRUST} for one in report.sentences}
    sentences = tuple(
        Sentence(
            text=span.text,
            start=span.start,
            end=span.end,
            logprob=float(logprobs[list(span.tokens)].sum()),
            method=method,
            top_tiles=top_tiles_of(evidence.slides, weights[row]),
            faithfulness=faithfulness_of(tested[row]) if tested else None,
            **trusted.get((span.start, span.end), {}),
        )
        for row, span in enumerate(spans)
    )
    warnings = [warning for warning in report.warnings if not warning.endswith(_NO_BETTER)]
    return report.model_copy(
        update={
            "sentences": sentences,
            "token_ids": case.token_ids,
            "top_tiles": top_tiles_of(evidence.slides, weights[-1]),
            "evidence": str(path.relative_to(out)),
            "warnings": (*warnings, *_doubts(sentences)),
        }
    )


def evidence_path(case_id: str) -> Path:
    """Return where a case's evidence lies, relative to the folder of its page."""
    return Path("evidence", Path(file_name(case_id)).with_suffix(".h5"))


def top_tiles_of(slides: Sequence[SlideTiles], weights: npt.NDArray[np.float32]) -> tuple[TopTile, ...]:
    """Return the tiles of a case that support something most; none of slides whose tiles' places are not known."""
    found = []
    for row in supporting_tiles(weights, TOP_TILES).tolist():
        slide = next(slide for slide in slides if slide.first <= row < slide.first + len(slide))
        if slide.side_l0:
            x, y = slide.coords[row - slide.first].tolist()
            weight = float(weights[row])
            found.append(TopTile(slide_id=slide.slide_id, x=x, y=y, size_l0_px=slide.side_l0, weight=weight))
    return tuple(found)


def faithfulness_of(curves: Mapping[str, npt.NDArray[np.float64]]) -> Faithfulness:
    """Return the figures of a tested map."""
    arrays: dict[str, Any] = dict(curves)
    return Faithfulness(**Curves(**arrays).summary())


def _tokens_of(span: Span) -> range:
    """Return a sentence's tokens; where it has none of its own, the one that it shares with the sentence before."""
    return span.tokens if len(span.tokens) else range(max(span.tokens.start - 1, 0), max(span.tokens.start, 1))


def _doubts(sentences: Sequence[Sentence]) -> list[str]:
    """Return at most one warning, however many sentences it is about: each says it again beside its own map."""
    tested = [(n, one.faithfulness) for n, one in enumerate(sentences, 1) if one.faithfulness is not None]
    doubtful = [str(number) for number, figures in tested if not figures.better_than_random]
    if not doubtful:
        return []
    if len(doubtful) == len(sentences):
        return [f"The tiles shown explain the text {_NO_BETTER}"]
    if len(doubtful) == 1:
        return [f"The tiles shown for sentence {doubtful[0]} explain it {_NO_BETTER}"]
    return [f"The tiles shown for sentences {', '.join(doubtful[:-1])} and {doubtful[-1]} explain them {_NO_BETTER}"]
