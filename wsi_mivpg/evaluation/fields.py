"""Facts read back from a report's text: organ, procedure, main finding, extent and number of foci.

Rules over the vocabulary of `cohorts.wording`; a fact that the text does not state is None, never guessed.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from wsi_mivpg.cohorts.wording import FINDING_PHRASES

_HEADER = re.compile(r" ?([^,(:;.]{1,100}?) ?[,(] ?([^,():;.]{1,100}?) ?\)? ?[:;]")
_EXTENT = re.compile(r"(?<![\d.])(\d{1,6}(?:\.\d{1,6})?)\s*(?:%|percent\b|per cent\b)", re.IGNORECASE)
_FOCI = re.compile(r"\b(\d{1,6}|a single|single|one|two|three|four|five|six)\s+(?:separate\s+)?foc(?:us|i)\b", re.I)
_BLANKS = re.compile(r"\s+")
_COUNTS = {"a single": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_NEAR = 100  # characters before a finding in which its denial is looked for
_NEGATED = re.compile(r"\b(?:no|not|without|negative for|no evidence of|absence of)\s+(?:\w+\s+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class ReportFields:
    """What a report states. `finding` is a key of `cohorts.wording.FINDING_PHRASES`; extent is in percent."""

    organ: str | None
    procedure: str | None
    finding: str | None
    extent_percent: float | None
    foci: int | None


@lru_cache(maxsize=100_000)
def extract_fields(text: str) -> ReportFields:
    """Read the fields of one report. Organ and procedure are lower-case; no facts give all None."""
    text = _BLANKS.sub(" ", text)
    header = _HEADER.match(text)
    body = text[header.end() :] if header else text
    extent = _EXTENT.search(body)
    foci = _FOCI.search(body)
    return ReportFields(
        organ=header[1].lower() if header else None,
        procedure=header[2].lower() if header else None,
        finding=_main_finding(body),
        extent_percent=float(extent[1]) if extent else None,
        foci=_count(foci[1].lower()) if foci else None,
    )


def _main_finding(body: str) -> str | None:
    """The finding that is named first and not denied; at one place the longest phrase wins."""
    british = re.sub(r"\btumor", "tumour", body, flags=re.IGNORECASE).replace("keratinizing", "keratinising")
    found = [
        (match.start(), -len(phrase), finding)
        for finding, phrases in FINDING_PHRASES.items()
        for phrase in phrases
        for match in re.finditer(rf"\b{re.escape(phrase)}\b", british, re.IGNORECASE)
        if not _NEGATED.search(british[max(match.start() - _NEAR, 0) : match.start()])
    ]
    return min(found)[2] if found else None


def _count(words: str) -> int:
    return _COUNTS[words] if words in _COUNTS else int(words)
