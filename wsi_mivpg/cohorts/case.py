"""A case: its slides, their bags, the report a pathologist wrote, its patient, and the split that it belongs to.

A manifest holds cases: CSV, Parquet or JSON Lines, with paths relative to the manifest's folder. A case is one row, or
as many rows as it has slides, with its id repeated.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wsi_mivpg.cohorts.tables import Problems, Row, read_rows, write_rows
from wsi_mivpg.errors import CohortError

SPLITS = ("train", "val", "test")
_PATHS = ("slides", "bags", "images")
_NAMES: dict[str, tuple[str, ...]] = {
    "case_id": ("case_id", "id"),
    "patient_id": ("patient_id", "patient"),
    "split": ("split",),
    "slides": ("slides", "slide", "slide_path", "path"),
    "bags": ("bags", "bag", "bag_path"),
    "images": ("images", "image", "image_path"),
    "reports": ("reports", "report", "text", "caption"),
    "truth": ("truth",),
}
"""Field -> the columns that can hold it; the first that is there does, and every other column is an attribute."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        case_id: its name, unique in a manifest.
        slide_paths: its slides.
        bag_paths: the feature bags of its slides.
        reports: equally right wordings of its one report; usually one, none where there is no report.
        split: "train", "val" or "test"; None until it is decided.
        truth: what is known to be true of a virtual slide.
        patient_id: whose case it is; None where every case is a patient of its own.
        image_paths: its pictures, where it has no slides: patches of a slide, or photographs.
        attributes: what else the manifest says of it, by column.
    """

    case_id: str
    slide_paths: tuple[Path, ...]
    bag_paths: tuple[Path, ...]
    reports: tuple[str, ...]
    split: str | None
    truth: dict[str, Any] | None = None
    patient_id: str | None = None
    image_paths: tuple[Path, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def patient(self) -> str:
        """The patient's id, or the case's where none is stated."""
        return self.patient_id or self.case_id

    def with_bags(self, bag_paths: Sequence[Path]) -> "Case":
        """Return the same case with these bags."""
        return replace(self, bag_paths=tuple(bag_paths))


def write_manifest(path: Path, cases: Sequence[Case]) -> None:
    """Write a .csv, .parquet or .jsonl manifest, one row a case, whole or not at all.

    Raises:
        CohortError: the suffix is of another kind, an attribute has the name of a column, or pyarrow is missing.
        OutputError: the folder cannot be written.
    """
    attributes = sorted({name for case in cases for name in case.attributes})
    lowered = {name.strip().lower() for name in attributes}
    wanted = {
        "patient_id": any(case.patient_id for case in cases),
        "images": any(case.image_paths for case in cases),
        "truth": any(case.truth is not None for case in cases) or path.suffix.lower() == ".jsonl",
    }
    # Written though empty where an attribute would be taken for it when the manifest is read.
    columns = [name for name in _NAMES if wanted.get(name, True) or lowered.intersection(_NAMES[name])]
    rows = [_row_of(case, path.parent.resolve(), columns) for case in cases]
    if path.suffix.lower() == ".csv" and all(len(case.reports) < 2 for case in cases):
        columns[columns.index("reports")] = "report"
        for row in rows:
            row["report"] = "".join(row.pop("reports"))
    if clash := lowered.intersection([*columns, *_NAMES]):
        raise CohortError(f"{path}: {min(clash)!r} cannot be an attribute's name; it is a column's")
    write_rows(path, rows, [*columns, *attributes])


def _row_of(case: Case, folder: Path, columns: Sequence[str]) -> Row:
    def relative(paths: tuple[Path, ...]) -> list[str]:
        # The name is kept where it is a link: a hub's cache links names to files that are called by their hash.
        parents = {parent: parent.resolve() for parent in {path.parent for path in paths}}
        return [os.path.relpath(parents[path.parent] / path.name, folder) for path in paths]

    row = {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "split": case.split,
        "slides": relative(case.slide_paths),
        "bags": relative(case.bag_paths),
        "images": relative(case.image_paths),
        "reports": list(case.reports),
        "truth": case.truth,
    }
    return {name: row[name] for name in columns} | dict(case.attributes)


def read_manifest(path: Path) -> list[Case]:
    """Read a .csv, .parquet or .jsonl manifest.

    Only `case_id` must be there. Columns may also be called by the other names of `_NAMES` (`slide`, `path`, `report`,
    `text` …); those that are not known become attributes.

    Raises:
        CohortError: the file is missing, holds no case, or rows are wrong; the first 20 are named with row and column.
    """
    problems = Problems(path)
    drafts: dict[str, list[_Draft]] = {}
    for number, record in read_rows(path, problems):
        draft = _drafted(number, record, problems)
        if draft is not None:
            drafts.setdefault(draft.case_id, []).append(draft)
    cases = [_joined(rows, path.parent, problems) for rows in drafts.values()]
    problems.raise_any()
    if not cases:
        raise CohortError(f"{path}: no case in it; give one row for each, below a header in a CSV")
    return cases


@dataclass
class _Draft:
    """What one row says."""

    row: int
    case_id: str
    paths: dict[str, list[str]]
    reports: list[str]
    split: str
    patient_id: str
    truth: dict[str, Any] | None
    attributes: dict[str, str]


def _drafted(row: int, record: Row, problems: Problems) -> _Draft | None:
    keys = {key.strip().lower(): key for key in record if isinstance(key, str)}
    columns = {name: keys[known[0]] for name in _NAMES if (known := [one for one in _NAMES[name] if one in keys])}

    def cell(name: str) -> Any:
        return record[columns[name]] if name in columns else None

    def text(name: str) -> str:
        value = cell(name)
        if isinstance(value, list | dict):
            problems.add(row, columns[name], f"{value!r} is not a text")
            return ""
        return _text(value)

    case_id, split = text("case_id"), text("split")
    if not case_id:
        problems.add(row, columns.get("case_id", "case_id"), "a case needs an id")
        return None
    if split and split not in SPLITS:
        problems.add(row, columns["split"], f"{split!r} is none of {', '.join(SPLITS)}")
    paths = {name: _path_list(cell(name)) for name in _PATHS}
    for name, found in paths.items():
        if found is None:
            problems.add(row, columns[name], f"{cell(name)!r} is not a path, nor paths with ; between them")
        elif remote := [one for one in found if "://" in one]:
            problems.add(row, columns[name], f"{remote[0]} is an address; a manifest names files that are here")
    reports = _report_list(cell("reports"), columns.get("reports", "").lower() == "reports")
    if reports is None:
        problems.add(row, columns["reports"], "is not a text, nor a list of texts")
    rest = {key: record[key] for key in record if key not in columns.values() and isinstance(key, str) and key.strip()}
    return _Draft(
        row,
        case_id,
        {name: found or [] for name, found in paths.items()},
        reports or [],
        split,
        text("patient_id"),
        _truth(row, cell("truth"), problems),
        {key.strip(): shown for key, value in rest.items() if (shown := _text(value))},
    )


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value).strip()


def _path_list(value: Any) -> list[str] | None:
    if isinstance(value, list):
        return list(value) if all(isinstance(one, str) and one for one in value) else None
    if value is None or isinstance(value, str):
        return [one.strip() for one in (value or "").split(";") if one.strip()]
    return [] if not _text(value) else None


def _report_list(value: Any, may_be_json: bool) -> list[str] | None:
    if may_be_json and isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]  # a report may begin with a bracket
    if isinstance(value, list):
        return list(value) if all(isinstance(one, str) for one in value) else None
    if value is None or isinstance(value, str):
        return [value] if value and value.strip() else []
    return [] if not _text(value) else None


def _truth(row: int, value: Any, problems: Problems) -> dict[str, Any] | None:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            problems.add(row, "truth", f"no JSON ({error})")
            return None
    if value is None or value == "" or isinstance(value, dict):
        return value or None
    problems.add(row, "truth", f"{value!r} is not an object")
    return None


def _joined(drafts: Sequence[_Draft], folder: Path, problems: Problems) -> Case:
    """Return the case that one row, or the rows of its slides, state."""
    first = drafts[0]
    whole = replace(first, paths={name: list(paths) for name, paths in first.paths.items()})
    for other in drafts[1:]:
        new = {name: [path for path in other.paths[name] if path not in whole.paths[name]] for name in _PATHS}
        if not any(new.values()):
            problems.add(
                other.row,
                "case_id",
                f"case {other.case_id!r} is there twice, also in row {first.row}, and this row adds no slide, bag or "
                "image; keep one",
            )
        for name in _PATHS:
            whole.paths[name] += new[name]
        for name in ("split", "patient_id", "reports", "truth"):
            now, known = getattr(other, name), getattr(whole, name)
            if now and known and now != known:
                column = "report" if name == "reports" else name
                message = f"case {other.case_id!r} has another in row {first.row}; it has but one"
                problems.add(other.row, column, message)
            setattr(whole, name, known or now)
    # A slide's own columns (its scanner, its stain) may differ within a case.
    names = dict.fromkeys(name for draft in drafts for name in draft.attributes)
    said = {name: [draft.attributes.get(name, "") for draft in drafts] for name in names}
    return Case(
        case_id=first.case_id,
        slide_paths=tuple(folder / path for path in whole.paths["slides"]),
        bag_paths=tuple(folder / path for path in whole.paths["bags"]),
        reports=tuple(whole.reports),
        split=whole.split or None,
        truth=whole.truth,
        patient_id=whole.patient_id or None,
        image_paths=tuple(folder / path for path in whole.paths["images"]),
        attributes={
            name: max(values) if len({*values} - {""}) == 1 else ";".join(values) for name, values in said.items()
        },
    )
