"""Numbers guard: percentages, sizes, counts, grades, stages and sides of a text, which a language model easily invents.

Rules only; what vouches for a number (a field with confidence) is given.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache

from wsi_mivpg.evaluation.clinical import load_vocabulary

_NUMBER = r"\d+(?:[.,]\d+)*"
_UNIT = r"(?:%|percent\b|per cent\b|(?:cm|mm|µm|um|μm)(?:2|²)?\b)"
_PATTERNS = (
    # Percentages, sizes of up to three sides, ranges.
    rf"[<>≤≥~]?\s?{_NUMBER}\s?{_UNIT}?(?:\s?(?:-|–|to|x|×|\+|=)\s?{_NUMBER}\s?{_UNIT}?)*",
    # 2 of 14 nodes, 3 / 14.
    rf"{_NUMBER}\s?(?:/|of|out of)\s?{_NUMBER}",
    # Written counts of what is counted.
    r"(?:a single|single|one|two|three|four|five|six|seven|eight|nine|ten)"
    r"(?=\s+(?:separate\s+|positive\s+|lymph\s+)*(?:foc(?:us|i)|nodes?|cores?|fragments?|nodules?|tumou?rs?)\b)",
    # TNM and stages: pT2a, ypN1, M0, stage IIIB, FIGO II.
    r"(?:[cpy]{0,2}[TNM](?:is|[0-4X])[a-d]?(?![a-z]))",
    r"(?:stage|figo|grade|group)\s*:?\s*(?:I{1,3}|IV|V)[A-C]?\d?\b",
)
_NAMES = re.compile(r"\b(?:[A-Za-z]+-?\d[\w-]*|\d+[A-Za-z]{2,}\d*|[A-Za-z]\d+)\b")
"""Names with digits in them (CD20, Ki-67, p53, HER2), of which no part is a number."""
_LIST_MARK = re.compile(r"^[ \t]*\d{1,2}[.)](?=\s)", re.MULTILINE)


def numbers_in(text: str) -> list[tuple[int, int]]:
    """Return the places (start, end) of all numbers, grades, stages and sides of a text, in order, none overlapping."""
    hidden = [match.span() for match in _LIST_MARK.finditer(text)]
    staged = [match.span() for pattern in _compiled()[1:] for match in pattern.finditer(text)]
    hidden += [
        match.span() for match in _NAMES.finditer(text) if not any(_overlap(match.span(), one) for one in staged)
    ]
    plain = [match.span() for match in _compiled()[0].finditer(text)]
    found = [_trimmed(text, span) for span in plain if not any(_overlap(span, one) for one in hidden)]
    found += [_trimmed(text, span) for span in staged]
    return list(_merged(sorted(found)))


def unverified(text: str, vouched: Sequence[str | int | float]) -> list[tuple[int, int]]:
    """Return the numbers of a text that no vouched value states: its number, or its very words, in lower case."""
    numbers = {float(value) for value in vouched if isinstance(value, int | float) and not isinstance(value, bool)}
    words = {str(value).lower() for value in vouched if isinstance(value, str)}
    numbers |= {float(found) for word in words for found in re.findall(r"\d+(?:\.\d+)?", word)}
    return [span for span in numbers_in(text) if not _is_vouched(text[slice(*span)].lower(), numbers, words)]


def _is_vouched(span: str, numbers: set[float], words: set[str]) -> bool:
    stated = {float(found) for found in re.findall(r"\d+(?:\.\d+)?", span.replace(",", "."))}
    return stated <= numbers if stated else any(span in word for word in words)


@cache
def _compiled() -> tuple[re.Pattern[str], ...]:
    """The patterns above, and grades and sides as the vocabulary of the evaluation has them; the first is numbers'."""
    vocabulary = load_vocabulary()
    grades = [pattern.pattern for field, pattern, _ in vocabulary.patterns if field == "grade"]
    sides = sorted((phrase for phrases in vocabulary.language["laterality"].values() for phrase in phrases), key=len)
    side = "|".join(re.escape(phrase).replace(r"\ ", r"[\s-]+") for phrase in reversed(sides))
    first = rf"(?<![\w.,]){_PATTERNS[0]}(?![\w])"
    rest = [rf"(?<![\w]){pattern}" for pattern in _PATTERNS[1:]]
    return tuple(re.compile(one, re.IGNORECASE) for one in (first, *rest, *grades, rf"\b(?:{side})s?\b"))


def _trimmed(text: str, span: tuple[int, int]) -> tuple[int, int]:
    start, end = span
    found = text[start:end]
    return start + len(found) - len(found.lstrip()), end - len(found) + len(found.rstrip())


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _merged(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    current: tuple[int, int] | None = None
    for span in spans:
        if current is not None and span[0] < current[1]:
            current = (current[0], max(current[1], span[1]))
            continue
        if current is not None:
            yield current
        current = span
    if current is not None:
        yield current
