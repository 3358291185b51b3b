"""The cases of a cohort all of whose slides have been extracted, with their bags; the others and why they are not.

It does not extract: which slide has which bag, and what failed, it is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.own import read
from wsi_mivpg.cohorts.importers.records import Record
from wsi_mivpg.cohorts.tcga import fold_tcga
from wsi_mivpg.errors import CohortError


@dataclass(frozen=True)
class Complete:
    """Cases that can be trained on or reported about, and case id -> why another cannot."""

    cases: tuple[Case, ...]
    left_out: dict[str, str]


def complete_cases(cohort: Path, bags: Mapping[str, Path], failed: Mapping[str, str]) -> Complete:
    """Give each case the bags of its slides; bags without a tile are dropped, and cases that have no other left out.

    Args:
        cohort: a manifest of slides.
        bags: slide id -> where its bag is, if it could be made.
        failed: slide id -> why it could not.

    Raises:
        CohortError: the manifest is malformed, or a slide has neither a bag nor a failure.
        BagError: a bag is damaged.
    """
    cases: list[Case] = []
    left_out: dict[str, str] = {}
    for record in read(cohort).records.values():
        case_id = record.case.case_id
        problems = [f"slide {name}: {failed[name]}" for name in record.names if name in failed]
        if problems:
            left_out[case_id] = "; ".join(problems)
        elif with_tissue := _with_tissue(record, bags, cohort):
            cases.append(record.case.with_bags(with_tissue))
        else:
            left_out[case_id] = "no tissue found on its slides"
    return Complete(tuple(fold_tcga(cases)), left_out)


def _with_tissue(record: Record, bags: Mapping[str, Path], cohort: Path) -> Sequence[Path]:
    paths = [bags[name] for name in record.names if name in bags]
    missing = [name for name in record.names if name not in bags or not bags[name].is_file()]
    if missing or not record.names:
        what = f"slide {missing[0]!r} has neither a bag nor a failure" if missing else "it names no slide"
        raise CohortError(f"{cohort}: case {record.case.case_id!r}: {what}; extract its slides first")
    return [path for path in paths if FeatureBag.open(path).n_tiles]
