"""A case: its slides, their bags, the reports a pathologist wrote, and the split that it belongs to.

The manifest is JSON Lines, one case a line, paths relative to the manifest's folder.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsi_mivpg.atomic import write_text
from wsi_mivpg.errors import CohortError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Case:
    """One case. `reports` are equally right wordings of one report; `truth` is there for virtual slides."""

    case_id: str
    slide_paths: tuple[Path, ...]
    bag_paths: tuple[Path, ...]
    reports: tuple[str, ...]
    split: str
    truth: dict[str, Any] | None = None

    def with_bags(self, bag_paths: Sequence[Path]) -> "Case":
        """Return the same case with these bags."""
        return replace(self, bag_paths=tuple(bag_paths))


def write_manifest(path: Path, cases: Sequence[Case]) -> None:
    """Write the manifest, whole or not at all."""
    folder = path.parent.resolve()

    def relative(paths: tuple[Path, ...]) -> list[str]:
        return [os.path.relpath(p.resolve(), folder) for p in paths]

    lines = [
        json.dumps(
            {
                "case_id": case.case_id,
                "split": case.split,
                "slides": relative(case.slide_paths),
                "bags": relative(case.bag_paths),
                "reports": list(case.reports),
                "truth": case.truth,
            }
        )
        for case in cases
    ]
    write_text(path, "".join(line + "\n" for line in lines))


def read_manifest(path: Path) -> list[Case]:
    """Read a manifest.

    Raises:
        CohortError: the file is missing, a line is not a case, an id is doubled, or a split is unknown.
    """
    if not path.is_file():
        raise CohortError(f"manifest {path} does not exist; `wsi-mivpg cohort virtual` or `train` writes one")
    cases: list[Case] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            case = _case_of(line, path, number)
            if case.case_id in seen:
                raise CohortError(f"{path}:{number}: case {case.case_id!r} is there twice; keep one line of it")
            seen.add(case.case_id)
            cases.append(case)
    return cases


def _case_of(line: str, path: Path, number: int) -> Case:
    try:
        record = json.loads(line)
        case = Case(
            case_id=str(record["case_id"]),
            slide_paths=tuple(path.parent / p for p in record["slides"]),
            bag_paths=tuple(path.parent / p for p in record["bags"]),
            reports=tuple(record["reports"]),
            split=record["split"],
            truth=record.get("truth"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CohortError(f"{path}:{number}: not a case ({error}); see docs/user-guide.md for the keys") from error
    if case.split not in SPLITS:
        raise CohortError(f"{path}:{number}: split {case.split!r} is none of {', '.join(SPLITS)}")
    return case
