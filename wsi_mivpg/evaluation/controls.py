"""The systems that stand beside a model: those made here from training reports and bags, and those read from files.

Runs of a model on shuffled or zeroed bags, and of a text-only language model, come as prediction files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.errors import BagError, TextsError
from wsi_mivpg.evaluation.baselines import most_frequent, most_frequent_of_class, nearest_neighbour
from wsi_mivpg.evaluation.clinical import read_report
from wsi_mivpg.evaluation.joining import Mismatch, Pairs
from wsi_mivpg.evaluation.outputs import normal
from wsi_mivpg.evaluation.readers import Gathered, one_text_each
from wsi_mivpg.evaluation.text_files import Entry, listed

IMAGE_CONTROLS = ("shuffled", "zeroed")
"""Names of the controls that tell how much a model looks at its slides."""


@dataclass(frozen=True)
class System:
    """One text per case, in the order of the pairs. `kind` is model, compared, control or baseline."""

    name: str
    kind: str
    texts: tuple[str, ...]


@dataclass
class Beside:
    """Systems beside the model, what a reader must know of them, and which are absent and why."""

    systems: list[System] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def read_system(
    name: str, kind: str, gathered: Gathered, pairs: Pairs, treatment: Mismatch
) -> tuple[System, list[str]]:
    """Return another system's texts for the cases of `pairs`, and what was left out of its file.

    Raises:
        TextsError: a case has no text (and `treatment` is not "empty"), or ids are extra and that is refused.
    """
    written = one_text_each(gathered)
    missing = [case_id for case_id in pairs.case_ids if case_id not in written]
    known = set(pairs.case_ids)
    extra = [case_id for case_id in written if case_id not in known]
    if missing and treatment != "empty":
        raise TextsError(
            f"{gathered.source} has no text for {listed(missing)}; systems are compared on the same cases: add them "
            "or score them as empty texts with --missing empty"
        )
    if extra and treatment == "refuse":
        raise TextsError(
            f"{gathered.source} has texts of other cases, {listed(extra)}; leave them out with --missing drop"
        )
    notes = [f"{name}: {len(missing)} without prediction, scored as empty: {listed(missing)}"] if missing else []
    notes += [f"{name}: {len(extra)} texts of other cases left out: {listed(extra)}"] if extra else []
    return System(name, kind, tuple(written.get(case_id, "") for case_id in pairs.case_ids)), notes


def baselines(
    pairs: Pairs, references: Gathered, train: Gathered | None, class_column: str | None, bags: Path | None
) -> Beside:
    """Return the systems that need no model.

    Args:
        pairs: the cases.
        references: their lines, which may name a class and bags.
        train: training reports; without them there is no baseline.
        class_column: column, or key of the truth, with the true class; None takes the organ that a report names.
        bags: folder of bags called by case id; None takes the paths in the column ``bags``.

    Raises:
        TextsError: `class_column` is not there.
    """
    beside = Beside()
    if train is None:
        why = "no training reports; name them with --train"
        beside.absent = dict.fromkeys(("most frequent", "most frequent of class", "nearest neighbour"), why)
        return beside
    cases = {name: texts[0] for name, texts in train.texts.items() if texts and texts[0].strip()}
    if not cases:
        raise TextsError(f"{train.source} has no training report with text; name another file with --train")
    texts = list(cases.values())
    beside.systems.append(System("most frequent", "baseline", (most_frequent(texts),) * len(pairs)))
    what = class_column or "organ"
    own = {
        case_id: _class_of(references.entries[case_id], wanted[0], class_column)
        for case_id, wanted in zip(pairs.case_ids, pairs.references, strict=True)
    }
    classes = [_class_of(train.entries[name], text, class_column) for name, text in cases.items()]
    of_class = most_frequent_of_class(texts, classes, own)
    beside.systems.append(
        System(f"most frequent of true {what}", "baseline", tuple(of_class[i] for i in pairs.case_ids))
    )
    if unknown := [case_id for case_id in pairs.case_ids if own[case_id] not in set(classes)]:
        beside.notes.append(
            f"no training report has the {what} of {listed(unknown)}: they get the most frequent of all"
        )
    _add_nearest(beside, pairs, references, train, cases, bags)
    _add_leaks(beside, pairs, references, train)
    return beside


def mean_feature(paths: Sequence[Path]) -> NDArray[np.float64]:
    """Return the mean over all tiles of a case's bags, float64 (dim,).

    Raises:
        BagError: a bag is missing, malformed or empty, has NaN, or widths differ.
    """
    total, n = None, 0
    for path in paths:
        features = np.asarray(FeatureBag.open(path).features, np.float64)
        if not np.isfinite(features).all():
            raise BagError(f"{path} has features that are NaN or infinite; extract its slide again")
        if total is not None and features.shape[1] != total.shape[0]:
            raise BagError(f"{path} has features of {features.shape[1]} numbers and the case's others {total.shape[0]}")
        total = features.sum(axis=0) if total is None else total + features.sum(axis=0)
        n += len(features)
    if total is None or not n:
        raise BagError(f"{', '.join(map(str, paths)) or 'a case'}: no tile to average")
    return np.asarray(total / n)


def unchanged_share(texts: Sequence[str], control: Sequence[str]) -> float:
    """Return the share of cases whose text a control leaves as it is, letters' case and white space aside."""
    return float(np.mean([normal(a) == normal(b) for a, b in zip(texts, control, strict=True)]))


def _class_of(entry: Entry, text: str, column: str | None) -> str:
    if column is None:
        return "+".join(sorted(read_report(text).statements.get("organ", ()))) or "none named"
    truth = entry.record.get("truth")
    places: list[Any] = [entry.record, truth if isinstance(truth, dict) else {}]
    found = next((place[column] for place in places if place.get(column) not in (None, "")), None)
    if found is None:
        raise TextsError(
            f"{entry.where} has no {column!r}, nor has its truth; name another --class-column or leave it out"
        )
    return str(found)


def _add_nearest(
    beside: Beside, pairs: Pairs, references: Gathered, train: Gathered, texts: dict[str, str], bags: Path | None
) -> None:
    own = {case_id: _bags_of(references, case_id, bags) for case_id in pairs.case_ids}
    theirs = {name: _bags_of(train, name, bags) for name in texts}
    if not any(own.values()) or not any(theirs.values()):
        beside.absent["nearest neighbour"] = (
            "no bags; name their folder with --bags, or give a manifest with a column bags"
        )
        return
    if lacking := [case_id for case_id, paths in own.items() if not paths]:
        beside.absent["nearest neighbour"] = f"no bag of {listed(lacking)}"
        return
    with_bags = [name for name, paths in theirs.items() if paths]
    if len(with_bags) < len(theirs):
        rest = [name for name in theirs if name not in set(with_bags)]
        beside.notes.append(f"nearest neighbour: {len(rest)} training cases without bag left out: {listed(rest)}")
    means = {case_id: mean_feature(paths) for case_id, paths in own.items()}
    found = nearest_neighbour(
        np.stack([mean_feature(theirs[name]) for name in with_bags]), [texts[name] for name in with_bags], means
    )
    beside.systems.append(System("nearest neighbour", "baseline", tuple(found[i] for i in pairs.case_ids)))


def _bags_of(gathered: Gathered, case_id: str, folder: Path | None) -> list[Path]:
    if folder is not None:
        path = folder / f"{case_id}.h5"
        return [path] if path.is_file() else []
    return list(gathered.bags.get(case_id, ()))


def _add_leaks(beside: Beside, pairs: Pairs, references: Gathered, train: Gathered) -> None:
    """Say which cases or patients are in training too."""
    if both := [case_id for case_id in pairs.case_ids if case_id in train.texts]:
        beside.notes.append(f"LEAK: {len(both)} scored cases are training cases too: {listed(both)}")
    patients = {entry.patient_id for entry in train.entries.values()} - {None}
    shared = {references.entries[case_id].patient_id for case_id in pairs.case_ids} & patients
    if shared:
        beside.notes.append(f"LEAK: {len(shared)} patients are in training too: {listed(sorted(map(str, shared)))}")
