"""Predictions and references that belong together, and an account of every id that has no partner.

Ids are compared exactly. Nothing is left out unless the caller says so, and then it is listed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.readers import Gathered, one_text_each
from wsi_mivpg.evaluation.text_files import listed

Mismatch = Literal["refuse", "empty", "drop"]


@dataclass(frozen=True)
class Pairs:
    """Predictions and references of the same cases, in the same order; each case has at least one reference."""

    case_ids: tuple[str, ...]
    predictions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.case_ids)

    def written_by(self, predictions: Sequence[str]) -> "Pairs":
        """Return the same cases with another system's texts, in the same order."""
        return Pairs(self.case_ids, tuple(predictions), self.references)


@dataclass(frozen=True)
class JoinReport:
    """What the join found.

    Attributes:
        n_predictions, n_references, n_scored: cases in each file, and cases that are scored.
        missing: reference ids without prediction.
        extra: prediction ids without reference; they are not scored.
        doubled_predictions, doubled_references: ids on several lines with the same text, which counts once.
        treatment: what was done about missing and extra ids.
        by_position: the files have no ids; texts met by their position.
    """

    n_predictions: int
    n_references: int
    n_scored: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    doubled_predictions: tuple[str, ...]
    doubled_references: tuple[str, ...]
    treatment: Mismatch
    by_position: bool

    def lines(self) -> list[str]:
        """Return what a reader must know, one sentence a line; an unremarkable join gives none."""
        done = {"empty": "scored as empty texts", "drop": "left out", "refuse": ""}[self.treatment]
        said = [f"{len(self.missing)} without prediction, {done}: {listed(self.missing)}"] if self.missing else []
        said += [f"{len(self.extra)} without reference, left out: {listed(self.extra)}"] if self.extra else []
        for what, names in (("prediction", self.doubled_predictions), ("reference", self.doubled_references)):
            if names:
                said.append(f"{len(names)} with the same {what} on several lines, counted once: {listed(names)}")
        if self.by_position:
            said.append("the files have no ids: texts were joined by their position")
        return said


def join(predictions: Gathered, references: Gathered, treatment: Mismatch = "refuse") -> tuple[Pairs, JoinReport]:
    """Bring together the texts of the same ids, in the order of the references.

    Args:
        predictions: one text per id.
        references: one or more texts per id.
        treatment: of ids without partner. "refuse" is an error; "empty" scores a missing prediction as an empty
            text; "drop" leaves it out. Predictions without reference are left out by both.

    Raises:
        TextsError: ids do not match and that is refused, nothing is left to score, or a reference is empty.
    """
    written = one_text_each(predictions)
    missing = [name for name in references.texts if name not in written]
    extra = [name for name in written if name not in references.texts]
    if treatment == "refuse":
        refuse_mismatch(missing, extra, "references", _same_but_for_endings(missing, extra))
    scored = [name for name in references.texts if treatment == "empty" or name in written]
    if not any(name in written for name in scored):
        raise TextsError(
            f"{predictions.source} and {references.source} have no id in common{_same_but_for_endings(missing, extra)}"
        )
    if bare := [name for name in scored if not any(text.strip() for text in references.texts[name])]:
        raise TextsError(f"{references.source}: no reference text for {listed(bare)}; give each case at least one")
    pairs = Pairs(
        tuple(scored),
        tuple(written.get(name, "") for name in scored),
        tuple(tuple(text for text in references.texts[name] if text.strip()) for name in scored),
    )
    report = JoinReport(
        len(written),
        len(references.texts),
        len(scored),
        tuple(missing),
        tuple(extra),
        predictions.doubled,
        references.doubled,
        treatment,
        predictions.by_position or references.by_position,
    )
    return pairs, report


def refuse_mismatch(missing: Sequence[str], extra: Sequence[str], what: str, hint: str = "") -> None:
    """Raise where ids have no partner.

    Raises:
        TextsError: `missing` or `extra` has an id.
    """
    if not missing and not extra:
        return
    parts = [f"no prediction for {listed(missing)}"] if missing else []
    parts += [f"not in the {what}: {listed(extra)}"] if extra else []
    raise TextsError(
        f"predictions and {what} do not match: {'; '.join(parts)}{hint}; give both the same case ids, or say with "
        "--missing empty or --missing drop what to do with cases that have no partner"
    )


def _same_but_for_endings(missing: Sequence[str], extra: Sequence[str]) -> str:
    stems = {name.rsplit(".", 1)[0] for name in extra}
    if {name.rsplit(".", 1)[0] for name in missing} & stems:
        return " (some ids differ only in a file ending such as .tiff: write them alike)"
    return ""
