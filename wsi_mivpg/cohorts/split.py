"""Divides a cohort into train, val and test: by patient, alike in every stratum, the same for the same seed.

What belongs together (a patient's cases, cases that share a file) is never divided. Whether the result leaks is
`checks`' matter.
"""

import json
import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wsi_mivpg.atomic import sha256_of, write_text
from wsi_mivpg.cohorts.case import SPLITS, Case
from wsi_mivpg.cohorts.tcga import patients_of
from wsi_mivpg.errors import CohortError

_TOLERANCE = 1e-6


def split_cases(
    cases: Sequence[Case], fractions: Mapping[str, float], *, seed: int = 0, stratify: str | None = None
) -> list[Case]:
    """Return the cases, in their order, each with its split; splits they had are replaced.

    Groups of a stratum are shuffled, and each goes where the share of cases so far is furthest below what it should
    be, so that every stratum is divided about as the whole is. The result depends on case ids, patients, strata, the
    fractions and the seed, not on the order of the cases.

    Args:
        cases: with or without splits.
        fractions: split -> share of the cases, 0 to 1; together 1.
        seed: another seed, another division.
        stratify: an attribute whose values are divided alike; cases that lack it are a stratum of their own.

    Raises:
        CohortError: the fractions do not add up to 1, no case has the attribute, or there are fewer patients than
            splits.
    """
    wanted = _checked(fractions)
    if stratify is not None and not any(stratify in case.attributes for case in cases):
        known = sorted({name for case in cases for name in case.attributes})
        raise CohortError(f"no case has {stratify!r}; the manifest has {', '.join(known) or 'no further column'}")
    groups = _groups(cases)
    if len(groups) < len(wanted):
        raise CohortError(
            f"{len(groups)} patient(s) cannot be divided into {len(wanted)} splits; give some splits the share 0"
        )
    chosen = _assigned(_ordered(groups, seed, stratify), wanted)
    return [replace(case, split=chosen[case.case_id]) for case in cases]


def write_split_record(
    manifest: Path, cases: Sequence[Case], fractions: Mapping[str, float], *, seed: int, stratify: str | None
) -> Path:
    """Write how `manifest` was divided to ``<manifest>.split.json`` beside it, with counts; return that path."""
    record: dict[str, Any] = {
        "manifest": manifest.name,
        "manifest_sha256": sha256_of(manifest),
        "seed": seed,
        "fractions": dict(fractions),
        "stratify": stratify,
        "counts": counts(cases),
    }
    if stratify is not None:
        strata = sorted({case.attributes.get(stratify, "") for case in cases})
        of = Counter((case.attributes.get(stratify, ""), case.split) for case in cases)
        record["strata"] = {stratum: {split: of[stratum, split] for split in SPLITS} for stratum in strata}
    path = manifest.with_name(f"{manifest.name}.split.json")
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def counts(cases: Sequence[Case]) -> dict[str, dict[str, int]]:
    """Return split -> numbers of cases, patients and slides (bags, where a case names no slide)."""
    return {
        split: {
            "cases": len(own),
            "patients": len({patient for case in own for patient in patients_of(case)}),
            "slides": sum(len(case.slide_paths or case.bag_paths) for case in own),
        }
        for split in SPLITS
        for own in [[case for case in cases if case.split == split]]
    }


def _checked(fractions: Mapping[str, float]) -> dict[str, float]:
    if unknown := set(fractions) - set(SPLITS):
        raise CohortError(f"split {sorted(unknown)[0]!r} is none of {', '.join(SPLITS)}")
    total = sum(fractions.values())
    if abs(total - 1) > _TOLERANCE or min(fractions.values()) < 0:
        shares = ", ".join(f"{split} {share:g}" for split, share in fractions.items())
        raise CohortError(f"the shares ({shares}) add up to {total:g}; give shares from 0 to 1 that add up to 1")
    return {split: fractions[split] for split in SPLITS if fractions.get(split, 0) > 0}


def _groups(cases: Sequence[Case]) -> list[list[Case]]:
    """Return what must stay together: cases that are linked by a patient or a file, directly or through others."""
    numbers: dict[str, int] = {}
    links = [
        (row, numbers.setdefault(key, len(numbers))) for row, case in enumerate(cases) for key in sorted(_keys(case))
    ]
    rows, keys = np.array(links, dtype=np.int64).reshape(-1, 2).T
    size = len(cases) + len(numbers)
    graph = coo_array((np.ones(len(links), np.int8), (rows, keys + len(cases))), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    found: dict[int, list[Case]] = {}
    for case, label in zip(cases, labels, strict=False):
        found.setdefault(int(label), []).append(case)
    return list(found.values())


def _keys(case: Case) -> set[str]:
    files = (*case.slide_paths, *case.image_paths, *case.bag_paths)
    return {f"patient {patient}" for patient in patients_of(case)} | {
        f"file {os.path.realpath(path)}" for path in files
    }


def _ordered(groups: Sequence[list[Case]], seed: int, stratify: str | None) -> list[list[Case]]:
    """Return the groups stratum by stratum, shuffled within each."""
    strata: dict[str, list[list[Case]]] = {}
    for group in sorted(groups, key=lambda group: min(case.case_id for case in group)):
        values = Counter(case.attributes.get(stratify, "") if stratify else "" for case in group)
        strata.setdefault(min(values, key=lambda value: (-values[value], value)), []).append(group)
    ordered = []
    for stratum in sorted(strata):
        rng = np.random.default_rng([seed, zlib.crc32(stratum.encode())])
        ordered += [strata[stratum][int(index)] for index in rng.permutation(len(strata[stratum]))]
    return ordered


def _assigned(ordered: Sequence[list[Case]], fractions: Mapping[str, float]) -> dict[str, str]:
    """Return case id -> split."""
    groups: dict[str, list[list[Case]]] = {split: [] for split in fractions}
    sizes = dict.fromkeys(fractions, 0)
    for group in ordered:
        total = sum(sizes.values()) + len(group)
        split = max(fractions, key=lambda split: fractions[split] * total - sizes[split])
        groups[split].append(group)
        sizes[split] += len(group)
    for own in groups.values():
        if not own:  # a small cohort: the split that has the most patients gives one
            own.append(max(groups.values(), key=len).pop())
    return {case.case_id: split for split, own in groups.items() for group in own for case in group}
