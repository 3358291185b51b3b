"""Finds what is wrong with bags: damage, NaN, doubled or misplaced tiles, wrong widths. It reads and never changes.

A problem makes a bag unfit for use; a warning only says what to look at.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsi_mivpg.bags.bag import FeatureBag
from wsi_mivpg.bags.layouts import SUFFIXES, is_candidate
from wsi_mivpg.errors import BagError

_BLOCK_ROWS = 8192
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class CheckedBag:
    """One file: the bag, or None where it cannot be opened, and what was found. Fine where `problems` is empty."""

    path: Path
    bag: FeatureBag | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def find_bags(paths: Sequence[Path]) -> list[Path]:
    """Return the files among `paths`, and in folders (at any depth) those that can be bags by their suffix.

    Raises:
        BagError: a path does not exist, or a folder holds no such file.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if is_candidate(file)) if path.is_dir() else []
        if not path.exists():
            raise BagError(f"{path}: no such file or folder; check the path")
        if path.is_dir() and not inside:
            raise BagError(f"{path}: no bag in this folder; bags end in {', '.join(SUFFIXES)}")
        found += inside or [path]
    return list(dict.fromkeys(found))


def check_bags(paths: Sequence[Path], dims: Mapping[str, int] | None = None) -> list[CheckedBag]:
    """Check files one by one, and their widths against each other: bags of one encoder have one width.

    Args:
        paths: files, as `find_bags` returns them.
        dims: encoder -> features per tile, where known.
    """
    checked = [check_bag_file(path) for path in paths]
    wanted = _common_dims(checked) | dict(dims or {})
    return [_with_dim_checked(one, wanted) for one in checked]


def check_bag_file(path: Path) -> CheckedBag:
    """Open a file as a bag and read all of it."""
    try:
        bag = FeatureBag.open(path)
        problems, warnings = _features(bag)
        problems += _places(bag)
    except BagError as error:
        return CheckedBag(path, None, (str(error).removeprefix(f"{path}: "),))
    if not len(bag):
        warnings.append("no tiles: no tissue was found")
    return CheckedBag(path, bag, tuple(problems), tuple(warnings))


def _features(bag: FeatureBag) -> tuple[list[str], list[str]]:
    if bag.features_key is None:
        return [], ["places only, no features"]
    view = bag.features_view()
    bad = large = flat = 0
    for start in range(0, len(view), _BLOCK_ROWS):
        block = view[start : start + _BLOCK_ROWS]
        finite = np.isfinite(block)
        bad += int((~finite.all(axis=1)).sum())
        flat += int((~block.any(axis=1)).sum())
        if block.dtype != np.float16:
            large += int((np.abs(block, where=finite, out=np.zeros_like(block)) > _FLOAT16_MAX).any(axis=1).sum())
    problems = [f"{bad} of {len(view)} tiles have NaN or infinite features"] if bad else []
    warnings = [f"{flat} of {len(view)} tiles have nothing but zeros"] if flat and bag.feature_dim else []
    warnings += [f"{large} of {len(view)} tiles have features that do not fit float16"] if large else []
    return problems, warnings


def _places(bag: FeatureBag) -> list[str]:
    stored = bag.stored_coords
    if stored is None or not len(stored):
        return []
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        return ["coordinates have NaN or infinite values"]
    problems = []
    doubled = len(stored) - len(np.unique(stored, axis=0))
    if doubled:
        problems.append(f"{doubled} of {len(stored)} coordinates are there twice")
    if bag.coords_known:
        coords = bag.coords
        beyond = (coords < 0).any(axis=1)
        if bag.are_patch_tokens:  # the class token lies nowhere
            beyond &= (bag.grid >= 0).any(axis=1)
        if bag.slide_size_px is not None:
            beyond |= (coords >= np.array(bag.slide_size_px)).any(axis=1)
        if beyond.any():
            x, y = coords[beyond][0]
            size = " x ".join(map(str, bag.slide_size_px)) if bag.slide_size_px else "unknown"
            problems.append(
                f"{int(beyond.sum())} of {len(coords)} coordinates are outside the slide "
                f"(first: x {x}, y {y}; slide {size} px)"
            )
    return problems


def _common_dims(checked: Sequence[CheckedBag]) -> dict[str, int]:
    counts: dict[str, Counter[int]] = {}
    for one in checked:
        if one.bag is not None and one.bag.feature_dim:
            counts.setdefault(one.bag.encoder or "", Counter())[one.bag.feature_dim] += 1
    return {encoder: dims.most_common(1)[0][0] for encoder, dims in counts.items()}


def _with_dim_checked(one: CheckedBag, wanted: Mapping[str, int]) -> CheckedBag:
    if one.bag is None or not one.bag.feature_dim:
        return one
    expected = wanted[one.bag.encoder or ""]
    if one.bag.feature_dim == expected:
        return one
    of = f"encoder {one.bag.encoder!r}" if one.bag.encoder else "the other bags"
    return replace(one, problems=(*one.problems, f"{one.bag.feature_dim} features per tile, but {of} has {expected}"))
