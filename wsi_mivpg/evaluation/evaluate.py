"""Predictions against references and truth, and the files that they come in.

Ids must match exactly: nothing is dropped in silence.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.fields import ReportFields, extract_fields
from wsi_mivpg.evaluation.metrics import signature, text_scores

_ID_KEYS = ("case_id", "id")
_TEXT_KEYS = ("text", "report", "reports", "texts")
_SHOWN = 5


@dataclass(frozen=True)
class FieldScores:
    """Facts against truth. A fact that a text does not state counts as wrong.

    Attributes:
        n_cases: cases with truth.
        finding_accuracy, organ_accuracy: shares (0..1) of all those cases.
        finding_recall: finding -> share of its cases that were named right.
        n_with_extent: cases whose truth is not benign; the figures below are over these.
        extent_stated: share of them whose text states an extent.
        extent_error: mean absolute error in percentage points where stated; None if nowhere.
        extent_within_10: share of them whose stated extent is within 10 percentage points of the truth.
        foci_accuracy: share of them with the exact number of foci.
    """

    n_cases: int
    finding_accuracy: float
    organ_accuracy: float
    finding_recall: dict[str, float]
    n_with_extent: int
    extent_stated: float | None
    extent_error: float | None
    extent_within_10: float | None
    foci_accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """Scores in 0..1, the signature of how they were computed, and facts where truth was given."""

    n_cases: int
    scores: dict[str, float]
    signature: str
    fields: FieldScores | None


def evaluate(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    truths: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evaluation:
    """Score predictions against one or more references per case and, where given, against truth.

    Args:
        predictions: case id -> text.
        references: case id -> texts, for exactly the same ids.
        truths: case id -> organ, finding, extent_percent, n_foci; for exactly the same ids.

    Raises:
        TextsError: ids differ (the message lists missing and extra ones), a case has no reference, or
            pycocoevalcap is not installed.
    """
    _same_ids(predictions, references, "references")
    if truths is not None:
        _same_ids(predictions, truths, "truths")
    if bare := [name for name, texts in references.items() if not texts]:
        raise TextsError(f"no reference text for {_listed(bare)}; give each case at least one")
    return Evaluation(
        n_cases=len(predictions),
        scores=text_scores(predictions, references),
        signature=signature(),
        fields=None if truths is None else _field_scores(predictions, truths),
    )


def load_texts(path: Path, split: str | None = None) -> dict[str, list[str]]:
    """Read id -> texts from .jsonl, .csv or .json; ids keep their order.

    JSON Lines and CSV: ``case_id`` (or ``id``) with ``text`` (or ``report``, ``reports``, ``texts``), as
    in reports.jsonl and in manifests; an id on several lines gathers its texts. JSON: {id: text or [texts]}.

    Raises:
        TextsError: the file is missing, of another kind or malformed; the message names the line.
    """
    texts: dict[str, list[str]] = {}
    for where, name, value in _entries(path, split):
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise TextsError(f"{where}: the text of {name!r} is {type(value).__name__}; give a text or a list of texts")
        texts.setdefault(name, []).extend(found)
    return texts


def load_predictions(path: Path) -> dict[str, str]:
    """Read id -> text as `load_texts` does, for exactly one text per id.

    Raises:
        TextsError: as `load_texts`, or an id has no text or several.
    """
    texts = load_texts(path)
    if several := [name for name, found in texts.items() if len(found) != 1]:
        raise TextsError(f"{path}: not one text but none or several for {_listed(several)}; keep one prediction a case")
    return {name: found[0] for name, found in texts.items()}


def load_references(path: Path, split: str | None = None) -> dict[str, list[str]]:
    """Read id -> one or more reference texts; the same as `load_texts`, named for its use."""
    return load_texts(path, split)


def load_truths(path: Path, split: str | None = None) -> dict[str, dict[str, Any]] | None:
    """Return id -> truth from a manifest (.jsonl), of one split if given; None unless every line has one.

    Raises:
        TextsError: the file is missing or malformed.
    """
    if path.suffix.lower() != ".jsonl":
        return None
    lines = [(record, where) for where, record in _of_split(_json_lines(path), split)]
    truths = {_id_of(record, where): record.get("truth") for record, where in lines}
    if not truths or not all(isinstance(truth, dict) for truth in truths.values()):
        return None
    return {name: dict(truth) for name, truth in truths.items() if truth is not None}


def _field_scores(predictions: Mapping[str, str], truths: Mapping[str, Mapping[str, Any]]) -> FieldScores:
    stated = {name: extract_fields(text) for name, text in predictions.items()}
    pairs = [(stated[name], truths[name]) for name in predictions]
    measured = [pair for pair in pairs if pair[1]["finding"] != "benign"]
    errors = [
        abs(fields.extent_percent - truth["extent_percent"])
        for fields, truth in measured
        if fields.extent_percent is not None
    ]
    findings = sorted({str(truth["finding"]) for _, truth in pairs})
    return FieldScores(
        n_cases=len(pairs),
        finding_accuracy=_share(_right_finding(*pair) for pair in pairs) or 0.0,
        organ_accuracy=_share(fields.organ == str(truth["organ"]).lower() for fields, truth in pairs) or 0.0,
        finding_recall={
            finding: _share(_right_finding(*pair) for pair in pairs if pair[1]["finding"] == finding) or 0.0
            for finding in findings
        },
        n_with_extent=len(measured),
        extent_stated=len(errors) / len(measured) if measured else None,
        extent_error=sum(errors) / len(errors) if errors else None,
        extent_within_10=sum(error <= 10 for error in errors) / len(measured) if measured else None,
        foci_accuracy=_share(fields.foci == truth["n_foci"] for fields, truth in measured),
    )


def _right_finding(fields: ReportFields, truth: Mapping[str, Any]) -> bool:
    return fields.finding == str(truth["finding"])


def _share(outcomes: Iterable[bool]) -> float | None:
    listed = list(outcomes)
    return sum(listed) / len(listed) if listed else None


def _same_ids(predictions: Mapping[str, Any], others: Mapping[str, Any], what: str) -> None:
    missing = [name for name in others if name not in predictions]
    extra = [name for name in predictions if name not in others]
    if not missing and not extra:
        return
    parts = [f"no prediction for {_listed(missing)}"] if missing else []
    parts += [f"not in the {what}: {_listed(extra)}"] if extra else []
    raise TextsError(f"predictions and {what} do not match: {'; '.join(parts)}; give both the same case ids")


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _of_split(rows: list[tuple[str, dict[str, Any]]], split: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Keep the rows of one split; of a file without splits nothing is left, which the ids then say."""
    return [row for row in rows if split is None or row[1].get("split") == split]


def _entries(path: Path, split: str | None) -> list[tuple[str, str, Any]]:
    """(place in the file, id, text or texts) of each entry."""
    kind = path.suffix.lower()
    if kind == ".json":
        record = _parsed(_content(path), str(path))
        return [(str(path), name, value) for name, value in record.items()]
    if kind == ".jsonl":
        rows = _json_lines(path)
    elif kind == ".csv":
        reader = csv.DictReader(_content(path).splitlines(keepends=True))
        rows = [(f"{path}, line {reader.line_num}", dict(row)) for row in reader]
    else:
        raise TextsError(f"{path}: {kind or 'a file without an ending'} is not read; give .jsonl, .csv or .json")
    return [(where, _id_of(record, where), _text_of(record, where)) for where, record in _of_split(rows, split)]


def _json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = enumerate(_content(path).split("\n"), 1)
    return [(f"{path}, line {n}", _parsed(line, f"{path}, line {n}")) for n, line in lines if line.strip()]


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise TextsError(f"{where} is not JSON: {error.msg}") from error
    if not isinstance(record, dict):
        raise TextsError(f"{where} is a JSON {type(record).__name__}; give an object")
    return record


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TextsError(f"cannot read texts from {path}: {error}; give a UTF-8 .jsonl, .csv or .json") from error


def _id_of(record: Mapping[str, Any], where: str) -> str:
    for key in _ID_KEYS:
        if record.get(key) is not None:
            return str(record[key])
    raise TextsError(f"{where} has no {' or '.join(_ID_KEYS)}")


def _text_of(record: Mapping[str, Any], where: str) -> Any:
    for key in _TEXT_KEYS:
        if record.get(key) is not None:
            return record[key]
    raise TextsError(f"{where} has none of {', '.join(_TEXT_KEYS)}")
