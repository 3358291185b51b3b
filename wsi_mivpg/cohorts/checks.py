"""Finds what makes a cohort unfit: leaks between splits, bags that are missing, incomplete or made in several ways.

It reads and never changes. What is found in the reports' texts is in `report_checks`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_mivpg.bags import CONTRACT, FeatureBag, agree
from wsi_mivpg.cohorts.case import SPLITS, Case
from wsi_mivpg.cohorts.findings import Finding, listed
from wsi_mivpg.cohorts.report_checks import report_findings
from wsi_mivpg.cohorts.tcga import patients_of
from wsi_mivpg.errors import BagError

_FIRST_ROWS = 16
_BLOCK_ROWS = 8192


def find_leaks(cases: Sequence[Case]) -> list[Finding]:
    """Check everything: leaks, splits, bags and reports; the rates are always among the findings.

    Features are read only of bags that have as many tiles and as wide features as a bag of another split.
    """
    opened = _open_bags(cases)
    return [
        *_leaks(cases, opened),
        *_without_split(cases),
        *_missing(cases, opened),
        *_mixed(cases, opened),
        *report_findings(cases),
    ]


def leaks_between_splits(cases: Sequence[Case]) -> list[Finding]:
    """Check only what training refuses: patients, slides (or their bags) and features that are in several splits."""
    return _leaks(cases, _open_bags(cases))


@dataclass(frozen=True)
class _Bags:
    """The cohort's bags by path: those that open, and what is wrong with the others."""

    good: dict[Path, FeatureBag]
    bad: dict[Path, str]


def _open_bags(cases: Sequence[Case]) -> _Bags:
    opened = _Bags({}, {})
    for path in dict.fromkeys(path for case in cases for path in case.bag_paths):
        try:
            opened.good[path] = FeatureBag.open(path)
        except BagError as error:
            opened.bad[path] = str(error)
    return opened


def _leaks(cases: Sequence[Case], opened: _Bags) -> list[Finding]:
    again = "`wsi-mivpg cohorts split` keeps each in one split"
    alike = "give cases that show the same the same patient_id, and split again"
    return [
        *_in_several_splits(cases, "patient", "patient", patients_of, again),
        *_in_several_splits(cases, "file", "slide, image or bag", _files_of, again),
        *_in_several_splits(cases, "features", "bag's features", _digests(cases, opened), alike),
    ]


def _in_several_splits(
    cases: Sequence[Case], kind: str, thing: str, keys_of: Callable[[Case], Iterable[str]], way_out: str
) -> list[Finding]:
    owners: dict[str, list[Case]] = {}
    for case in cases:
        if case.split is not None:
            for key in keys_of(case):
                owners.setdefault(key, []).append(case)
    shared = {key: found for key, found in owners.items() if len({case.split for case in found}) > 1}
    if not shared:
        return []
    where = Counter(_splits_of(found) for found in shared.values())
    counts = "; ".join(f"{splits}: {count}" for splits, count in sorted(where.items()))
    concerned = tuple(dict.fromkeys(case.case_id for found in shared.values() for case in found))
    examples = [
        f"{_short(key, kind)} ({', '.join(case.case_id for case in found[:3])})" for key, found in shared.items()
    ]
    message = f"{len(shared)} {thing}(s) in several splits ({counts}): {listed(examples)}; {way_out}"
    return [Finding(kind, "leak", message, concerned)]


def _splits_of(cases: Iterable[Case]) -> str:
    return " and ".join(split for split in SPLITS if any(case.split == split for case in cases))


def _short(key: str, kind: str) -> str:
    return f"sha256 {key[:12]}…" if kind == "features" else key


def _files_of(case: Case) -> list[str]:
    return [os.path.realpath(path) for path in (*case.slide_paths, *case.image_paths, *case.bag_paths)]


def _digests(cases: Sequence[Case], opened: _Bags) -> Callable[[Case], Iterable[str]]:
    """Return what gives a case's sha256 of features, for bags that have a likeness in another split.

    Bags that differ in shape differ, and so do those that differ in their first rows; only the rest are read whole.
    One file that is named by two cases is a shared file, found as such, and counts here once.
    """
    splits: dict[Path, set[str]] = {}
    files: dict[str, Path] = {}
    for case in cases:
        for path in case.bag_paths:
            bag = opened.good.get(path)
            if case.split is not None and bag is not None and len(bag) and bag.feature_dim:
                splits.setdefault(files.setdefault(os.path.realpath(path), path), set()).add(case.split)
    by_shape = _alike(splits, lambda path: f"{len(opened.good[path])}x{opened.good[path].feature_dim}")
    by_start = _alike(by_shape, lambda path: _sha256(opened.good[path], _FIRST_ROWS))
    digests = {path: _sha256(opened.good[path]) for path in by_start}
    return lambda case: [digests[path] for path in case.bag_paths if path in digests]


def _alike(splits: dict[Path, set[str]], key_of: Callable[[Path], str]) -> dict[Path, set[str]]:
    """Return the bags for which another bag of another split has the same key."""
    groups: dict[str, list[Path]] = {}
    for path in splits:
        groups.setdefault(key_of(path), []).append(path)
    kept = [group for group in groups.values() if len({split for path in group for split in splits[path]}) > 1]
    return {path: splits[path] for group in kept if len(group) > 1 for path in group}


def _sha256(bag: FeatureBag, rows: int | None = None) -> str:
    """Return the sha256 of the features' values as float32, so that a copy in another type is the same."""
    digest = hashlib.sha256()
    view = bag.features_view() if rows is None else bag.features_at(slice(0, rows))
    for start in range(0, len(view), _BLOCK_ROWS):
        digest.update(np.ascontiguousarray(view[start : start + _BLOCK_ROWS], dtype=np.float32).tobytes())
    return digest.hexdigest()


def _without_split(cases: Sequence[Case]) -> list[Finding]:
    bare = tuple(case.case_id for case in cases if case.split is None)
    if not bare:
        return []
    message = (
        f"{len(bare)} of {len(cases)} cases have no split: {listed(bare)}; `wsi-mivpg cohorts split` gives them one"
    )
    return [Finding("split", "warning", message, bare)]


def _missing(cases: Sequence[Case], opened: _Bags) -> list[Finding]:
    if not any(case.bag_paths for case in cases):
        message = (
            "no case has a bag yet; extract, then name them by `wsi-mivpg cohorts import manifest … --bags FOLDER`"
        )
        return [Finding("bag", "warning", message)]
    found = []
    bare = tuple(case.case_id for case in cases if not case.bag_paths)
    if bare:
        message = f"{len(bare)} case(s) have no bag: {listed(bare)}; extract their slides, or leave them out"
        found.append(Finding("bag", "error", message, bare))
    short = [case for case in cases if case.bag_paths and len(case.bag_paths) < len(case.slide_paths)]
    if short:
        shown = listed(f"{case.case_id} ({len(case.bag_paths)} of {len(case.slide_paths)})" for case in short)
        message = f"{len(short)} case(s) have fewer bags than slides: {shown}; extract the others"
        found.append(Finding("bag", "error", message, tuple(case.case_id for case in short)))
    if opened.bad:
        concerned = tuple(case.case_id for case in cases if opened.bad.keys() & set(case.bag_paths))
        shown = "\n  ".join(list(opened.bad.values())[:5])
        found.append(Finding("bag", "error", f"{len(opened.bad)} bag(s) cannot be read:\n  {shown}", concerned))
    return found + _without_tiles(cases, opened)


def _without_tiles(cases: Sequence[Case], opened: _Bags) -> list[Finding]:
    def tiles(case: Case) -> list[int]:
        return [len(opened.good[path]) for path in case.bag_paths if path in opened.good]

    nothing = tuple(case.case_id for case in cases if tiles(case) and not any(tiles(case)))
    partly = tuple(case.case_id for case in cases if any(tiles(case)) and 0 in tiles(case))
    found = []
    if nothing:
        message = f"{len(nothing)} case(s) have bags but no tile: {listed(nothing)}; look at `wsi-mivpg info --qc`"
        found.append(Finding("bag", "error", message, nothing))
    if partly:
        message = f"{len(partly)} case(s) have a slide without tiles: {listed(partly)}"
        found.append(Finding("bag", "warning", message, partly))
    return found


def _mixed(cases: Sequence[Case], opened: _Bags) -> list[Finding]:
    """One model reads bags of one kind."""
    found: list[Finding] = []
    silent: dict[Path, list[str]] = {}
    for name in CONTRACT:
        groups: list[tuple[object, list[Path]]] = []
        for path, bag in opened.good.items():
            value = getattr(bag, name)
            group = next((paths for known, paths in groups if agree(known, value)), None)
            if group is None:
                groups.append((value, [path]))
            else:
                group.append(path)
        groups.sort(key=lambda group: -len(group[1]))
        stated = [group for group in groups if group[0] is not None]
        unstated = [path for value, paths in groups if value is None for path in paths]
        if len(stated) > 1:
            rare = {path for _, paths in stated[1:] for path in paths}
            counts = "; ".join(f"{value!r} in {len(paths)} bag(s), such as {paths[0]}" for value, paths in stated)
            message = f"{name} is not the same everywhere: {counts}; extract all slides alike"
            found.append(Finding("encoder", "error", message, _cases_of(cases, rare)))
        for path in unstated:
            silent.setdefault(path, []).append(name)
    if silent:
        names = ", ".join(dict.fromkeys(name for names in silent.values() for name in names))
        shown = listed(map(str, silent))
        message = f"{len(silent)} bag(s) do not state their {names}: {shown}; `wsi-mivpg bags convert` can state it"
        found.append(Finding("encoder", "warning", message, _cases_of(cases, set(silent))))
    return found


def _cases_of(cases: Sequence[Case], bags: set[Path]) -> tuple[str, ...]:
    return tuple(case.case_id for case in cases if bags & set(case.bag_paths))
