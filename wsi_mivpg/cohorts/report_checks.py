"""Finds what is wrong or telling in a cohort's reports: none, empty, or (nearly) the same in several splits.

Texts only. That a test report occurs in training word for word is no leak by itself (many slides truly show the same),
but what a model scores means little without that rate.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import product

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.findings import Finding, listed

NEAR = 0.9
"""Cosine of TF-IDF vectors of words and word pairs from which two reports are near duplicates."""
_MOST_TEXTS = 20_000
"""All pairs are compared, so that more would take hours."""
_BLOCK = 512
_NO_WORD = re.compile(r"[^\w]+")


def report_findings(cases: Sequence[Case]) -> list[Finding]:
    """Return empty, equal and nearly equal reports, and how many val and test reports occur in train."""
    return [
        *_without_text(cases),
        *_same_in_splits(cases),
        *(verbatim_rate(cases, split) for split in ("test", "val")),
        *_near_duplicates(cases),
    ]


def normalised(text: str) -> str:
    """Return the words alone: one case, one form of every character, no punctuation, single spaces."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def verbatim_rate(cases: Sequence[Case], split: str) -> Finding:
    """Return the share of a split's reports that occur in train, word for word and after `normalised`."""
    train = [text for case in cases if case.split == "train" for text in case.reports]
    own = [text for case in cases if case.split == split for text in case.reports]
    kind = f"{split}-in-train"
    if not own or not train:
        missing = split if not own else "train"
        return Finding(kind, "rate", f"share of {split} reports that occur in train: none, for {missing} has no report")
    exact, even = set(train), {normalised(text) for text in train}
    n_exact = sum(text in exact for text in own)
    concerned = tuple(
        case.case_id for case in cases if case.split == split and any(normalised(text) in even for text in case.reports)
    )
    n_even = sum(normalised(text) in even for text in own)
    message = (
        f"share of {split} reports that occur in train: {n_exact} of {len(own)} ({n_exact / len(own):.1%}) word for "
        f"word, {n_even} ({n_even / len(own):.1%}) but for case, punctuation and spaces"
    )
    return Finding(kind, "rate", message, concerned, n_even / len(own))


def _without_text(cases: Sequence[Case]) -> list[Finding]:
    found = []
    empty = tuple(case.case_id for case in cases if any(not normalised(text) for text in case.reports))
    bare = tuple(case.case_id for case in cases if not case.reports)
    if empty:
        message = f"{len(empty)} case(s) have a report without a word: {listed(empty)}; write it, or leave it out"
        found.append(Finding("report", "error", message, empty))
    if bare:
        message = f"{len(bare)} of {len(cases)} cases have no report, so they can neither train nor be scored"
        found.append(Finding("report", "warning", f"{message}: {listed(bare)}", bare))
    return found


def _owners(cases: Iterable[Case]) -> dict[str, list[Case]]:
    owners: dict[str, list[Case]] = {}
    for case in cases:
        for text in dict.fromkeys(map(normalised, case.reports)):
            if text:
                owners.setdefault(text, []).append(case)
    return owners


def _same_in_splits(cases: Sequence[Case]) -> list[Finding]:
    shared = {text: found for text, found in _owners(cases).items() if len(_splits(found)) > 1}
    if not shared:
        return []
    concerned = tuple(dict.fromkeys(case.case_id for found in shared.values() for case in found))
    longest = max(shared, key=lambda text: len(text.split()))
    message = (
        f"{len(shared)} report text(s) are the same in several splits, in {len(concerned)} cases; short ones may be "
        f"true of many slides, long ones may be one patient under two ids. The longest has "
        f"{len(longest.split())} words: {listed(f'{case.case_id} ({case.split})' for case in shared[longest])}"
    )
    return [Finding("report", "warning", message, concerned)]


def _splits(cases: Iterable[Case]) -> set[str]:
    return {case.split for case in cases if case.split is not None}


def _near_duplicates(cases: Sequence[Case]) -> list[Finding]:
    owners = _owners(cases)
    if len(owners) > _MOST_TEXTS:
        message = (
            f"near-duplicate reports are not looked for among more than {_MOST_TEXTS} texts; here are {len(owners)}"
        )
        return [Finding("near-duplicate", "warning", message)]
    try:
        pairs = near_pairs(list(owners))
    except ImportError:
        message = "near-duplicate reports were not looked for: pip install 'wsi-mivpg[evaluate]' (scikit-learn)"
        return [Finding("near-duplicate", "warning", message)]
    shown: list[str] = []
    concerned: dict[str, None] = {}
    for one, other, cosine in pairs:
        apart = _apart(owners[one], owners[other])
        if apart is not None:
            first, second = apart
            shown.append(f"{first.case_id} ({first.split}) and {second.case_id} ({second.split}): {cosine:.2f}")
            concerned |= dict.fromkeys((first.case_id, second.case_id))
    if not shown:
        return []
    message = f"{len(shown)} pair(s) of reports are nearly the same in different splits (cosine {NEAR} and more): "
    return [Finding("near-duplicate", "warning", message + listed(shown), tuple(concerned))]


def _apart(some: Sequence[Case], others: Sequence[Case]) -> tuple[Case, Case] | None:
    """Return a case of each that are in different splits, or two different cases where neither has one."""
    pairs = product({case.split: case for case in some}.values(), {case.split: case for case in others}.values())
    for one, other in pairs:
        if one.case_id != other.case_id and (one.split != other.split or one.split is None):
            return one, other
    return None


def near_pairs(texts: Sequence[str], least: float = NEAR) -> list[tuple[str, str, float]]:
    """Return the pairs of different texts whose TF-IDF vectors are alike, the most alike first.

    Raises:
        ImportError: scikit-learn is not installed (extra "evaluate").
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(texts) < 2:
        return []
    vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b").fit_transform(texts).tocsr()
    pairs: list[tuple[str, str, float]] = []
    for start in range(0, len(texts), _BLOCK):
        cosines = (vectors[start : start + _BLOCK] @ vectors.T).tocoo()
        alike = (cosines.data >= least) & (cosines.row + start < cosines.col)
        found = zip(cosines.row[alike] + start, cosines.col[alike], cosines.data[alike], strict=True)
        pairs += [(texts[row], texts[column], float(cosine)) for row, column, cosine in found]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))
