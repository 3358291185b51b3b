"""Per-field precision and recall, errors of numbers, flipped negations and over-specific statements.

Each prediction is held against the one of its references that shares most statements with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wsi_mivpg.evaluation.clinical.extract import ClinicalFields, read_report
from wsi_mivpg.evaluation.clinical.vocabulary import Vocabulary, load_vocabulary
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Metric, ratio_of

STATED_FIELDS = (
    "organ",
    "procedure",
    "diagnosis_class",
    "histological_type",
    "other_findings",
    "grade",
    "laterality",
    "margin",
    "nodes",
    "invasion",
    "negation",
    "uncertainty",
)
NUMBER_FIELDS = ("percentage", "size_mm", "margin_distance_mm", "nodes_positive", "nodes_examined", "foci")
DETAILS = ("grade", "laterality", "margin", "nodes", "invasion", *NUMBER_FIELDS)
"""Fields whose statement is over-specific where the reference says nothing of them."""

_SIGNATURE = "clinical-fields:1|reference:closest"
_PERCENTAGE_POINTS = 10.0
_RELATIVE_SIZE = 0.1
_UNITS = {"percentage": "points", "size_mm": "mm", "margin_distance_mm": "mm"}


def clinical_metrics(pairs: Pairs, vocabulary: Vocabulary | None = None) -> list[Metric]:
    """Return the metrics of every field that a prediction or a reference states.

    ``field.NAME.precision`` and ``.recall`` are shares of statements, over all cases; a percentage is right within 10
    points, a size within a tenth, a count exactly. ``number_error.NAME`` is the mean absolute difference where both
    state it. ``negation_flips`` is the share of findings named by both that one affirms and the other denies.
    ``over_specific`` is the share of a prediction's statements that go beyond the reference: a detail of which it says
    nothing, or a narrower type than its own.
    """
    words = vocabulary or load_vocabulary()
    known: dict[tuple[str, str], _Compared] = {}
    rows = []
    for written, texts in zip(pairs.predictions, pairs.references, strict=True):
        for text in texts:
            if (written, text) not in known:
                known[written, text] = _compare(read_report(written, words), read_report(text, words), words)
        rows.append(max((known[written, text] for text in texts), key=lambda one: one.n_shared))
    metrics = []
    for field in (*STATED_FIELDS, *NUMBER_FIELDS):
        right, stated, wanted = zip(*(row.agreement.get(field, (0, 0, 0)) for row in rows), strict=True)
        if not sum(stated) and not sum(wanted):
            continue
        for kind, below, who in (("precision", stated, "prediction"), ("recall", wanted, "reference")):
            name = f"field.{field}.{kind}"
            metrics.append(ratio_of(name, _SIGNATURE, right, below, undefined=f"no {who} states {field}"))
    for field in NUMBER_FIELDS:
        above, below = zip(*(row.errors.get(field, (0.0, 0)) for row in rows), strict=True)
        if sum(below):
            signature = f"{_SIGNATURE}|mean-absolute{',' + _UNITS[field] if field in _UNITS else ''}"
            why = f"prediction and reference never both state {field}"
            metrics.append(
                ratio_of(f"number_error.{field}", signature, above, below, undefined=why, higher_is_better=False)
            )
    for name, counts, why in (
        ("negation_flips", [row.flips for row in rows], "prediction and reference never name the same finding"),
        ("over_specific", [row.over_specific for row in rows], "predictions state nothing"),
    ):
        above, below = zip(*counts, strict=True)
        metrics.append(ratio_of(name, _SIGNATURE, above, below, undefined=why, higher_is_better=False))
    return metrics


@dataclass(frozen=True)
class _Compared:
    """One prediction against one reference: right, stated and wanted statements by field, and errors as (sum, n)."""

    agreement: Mapping[str, tuple[int, int, int]]
    errors: Mapping[str, tuple[float, int]]
    flips: tuple[int, int]
    over_specific: tuple[int, int]
    n_shared: int


def _compare(own: ClinicalFields, wanted: ClinicalFields, words: Vocabulary) -> _Compared:
    agreement = {}
    for field in {*own.statements, *wanted.statements}:
        said, true = own.statements.get(field, frozenset()), wanted.statements.get(field, frozenset())
        agreement[field] = (len(said & true), len(said), len(true))
    errors = {}
    for field in {name.split(".")[0] for name in (*own.numbers, *wanted.numbers)}:
        ours, theirs = _numbers(field, own), _numbers(field, wanted)
        both = [(value, theirs[name]) for name, value in ours.items() if name in theirs]
        agreement[field] = (sum(close(field, *pair) for pair in both), len(ours), len(theirs))
        errors[field] = (sum(abs(value - true) for value, true in both), len(both))
    shared = sum(right for right, _, _ in agreement.values())
    return _Compared(
        agreement, errors, flips(own, wanted, words), _over_specific(own, wanted, agreement, words), shared
    )


def _numbers(field: str, one: ClinicalFields) -> Mapping[str, float]:
    return {name: value for name, value in one.numbers.items() if name == field or name.startswith(f"{field}.")}


def close(field: str, value: float, true: float) -> bool:
    """Return whether a number is right: a percentage within 10 points, a size within a tenth, a count exactly."""
    if field == "percentage":
        return abs(value - true) <= _PERCENTAGE_POINTS
    if field in ("size_mm", "margin_distance_mm"):
        return abs(value - true) <= _RELATIVE_SIZE * true
    return value == true


def flips(own: ClinicalFields, wanted: ClinicalFields, words: Vocabulary) -> tuple[int, int]:
    """Count findings of the prediction that the reference contradicts, and those of which the reference speaks too.

    Who denies carcinoma denies every kind of it: a denial is met by the finding itself and by narrower ones.
    """

    def implies(name: str) -> frozenset[str]:
        return frozenset({name, *words.ancestors(name)})

    flips = comparable = 0
    for name in own.affirmed:
        contradicted = bool(implies(name) & wanted.denied)
        agreed = any(name in implies(other) or other in implies(name) for other in wanted.affirmed)
        flips += contradicted and not agreed
        comparable += contradicted or agreed
    for name in own.denied:
        contradicted = any(name in implies(other) for other in wanted.affirmed)
        agreed = any(name in implies(other) or other in implies(name) for other in wanted.denied)
        flips += contradicted and not agreed
        comparable += contradicted or agreed
    return flips, comparable


def _over_specific(
    own: ClinicalFields, wanted: ClinicalFields, agreement: Mapping[str, tuple[int, int, int]], words: Vocabulary
) -> tuple[int, int]:
    stated = sum(len(values) for values in own.statements.values()) + len(own.numbers)
    beyond = sum(agreement[field][1] for field in DETAILS if field in agreement and not agreement[field][2])
    true_types = wanted.statements.get("histological_type", frozenset()) | wanted.affirmed
    for name in own.statements.get("histological_type", frozenset()):
        beyond += name not in true_types and bool(set(words.ancestors(name)) & true_types)
    return beyond, stated
