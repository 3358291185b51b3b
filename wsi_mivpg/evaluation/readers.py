"""The texts of each case, gathered from a file by id.

Which ids meet is for `joining`; how files are written is for `text_files`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.text_files import Entry, listed, read_entries


@dataclass(frozen=True)
class Gathered:
    """The texts of each case, in the file's order.

    Attributes:
        source: the file.
        texts: case id -> its different texts.
        entries: case id -> its first entry.
        bags: case id -> the bags that its entries name; relative paths are to the file's folder.
        doubled: ids that stand on several lines with the same text, which counts once.
        by_position: the file has no ids; they are the texts' positions, from 0.
    """

    source: str
    texts: dict[str, tuple[str, ...]]
    entries: dict[str, Entry]
    bags: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    doubled: tuple[str, ...] = ()
    by_position: bool = False


def gather(path: Path, split: str | None = None) -> Gathered:
    """Read a file's texts.

    JSON Lines, CSV and Parquet: an id (``case_id``, ``id``, ``image_id``) with a text (``text``, ``report``,
    ``caption``) or several (``reports``, ``texts``), as in reports.jsonl and in manifests; an id on several lines
    gathers its texts.
    JSON: ``{id: text}``, ``{id: [text]}``, ``[{"id": …, "report": …}]``, COCO's ``{"annotations": […]}``. A CSV of one
    column without header, as R2Gen writes gts.csv and res.csv, and a JSON list of texts have positions as ids.

    Args:
        path: .jsonl, .csv, .parquet or .json; text is UTF-8.
        split: keep only the lines of this split.

    Raises:
        TextsError: the file is missing, empty, of another kind, not UTF-8 or malformed; the message names the line.
    """
    entries, by_position = read_entries(path)
    kept = [entry for entry in entries if split is None or entry.record.get("split") == split]
    if not entries:
        raise TextsError(f"{path} holds no report; give a file with at least one id and text")
    if not kept:
        found = sorted({str(entry.record["split"]) for entry in entries if entry.record.get("split")})
        raise TextsError(f"{path} has no case of the split {split!r}; it has {listed(found) or 'no column split'}")
    texts: dict[str, list[str]] = {}
    first: dict[str, Entry] = {}
    doubled: list[str] = []
    bags: dict[str, tuple[Path, ...]] = {}
    for entry in kept:
        bags[entry.case_id] = (*bags.get(entry.case_id, ()), *(path.parent / one for one in entry.bag_names))
        known = texts.setdefault(entry.case_id, [])
        if entry.case_id not in first:
            first[entry.case_id] = entry
            known += entry.texts
            continue
        new = [text for text in entry.texts if text not in known]
        if len(new) < max(len(entry.texts), 1) and entry.case_id not in doubled:
            doubled.append(entry.case_id)
        known += new
    of_case = {name: tuple(found) for name, found in texts.items()}
    return Gathered(str(path), of_case, first, bags, tuple(doubled), by_position)


def one_text_each(gathered: Gathered) -> dict[str, str]:
    """Return id -> text of predictions.

    Raises:
        TextsError: an id has no text or several different ones.
    """
    if several := [name for name, found in gathered.texts.items() if len(found) != 1]:
        raise TextsError(
            f"{gathered.source}: not one text but none or several for {listed(several)}; keep one prediction a case"
        )
    return {name: found[0] for name, found in gathered.texts.items()}


def load_texts(path: Path, split: str | None = None) -> dict[str, list[str]]:
    """Read id -> texts as `gather` does."""
    return {name: list(found) for name, found in gather(path, split).texts.items()}


def load_predictions(path: Path) -> dict[str, str]:
    """Read id -> text, for exactly one text per id.

    Raises:
        TextsError: as `gather`, or an id has no text or several.
    """
    return one_text_each(gather(path))


def load_references(path: Path, split: str | None = None) -> dict[str, list[str]]:
    """Read id -> one or more reference texts; the same as `load_texts`, named for its use."""
    return load_texts(path, split)


def load_truths(path: Path, split: str | None = None) -> dict[str, dict[str, Any]] | None:
    """Return id -> truth from a manifest (.jsonl, .parquet), of one split if given; None unless every line has one.

    Raises:
        TextsError: the file is missing or malformed.
    """
    return truths_of(gather(path, split)) if path.suffix.lower() in (".jsonl", ".parquet") else None


def truths_of(gathered: Gathered) -> dict[str, dict[str, Any]] | None:
    """Return id -> truth; None unless every case has one."""
    truths = {name: entry.record.get("truth") for name, entry in gathered.entries.items()}
    if not all(isinstance(truth, dict) for truth in truths.values()):
        return None
    return {name: dict(truth) for name, truth in truths.items() if truth is not None}
