"""Reports written from the truth, by template, and the truth read back from a written report.

Co-occurrence stands before presence, so that no sentence follows from the ones before it.
"""

import re
from dataclasses import dataclass
from functools import cache

from wsi_mivpg.evaluation.metrics import tokenise

from .tissue_maps import Truth

PHRASES: dict[str, dict[str, str]] = {
    "crc5": {
        "main": "adenocarcinoma",
        "partner": "villous adenoma",
        "first": "tubular adenoma",
        "second": "serrated lesion",
    },
    "rendered": {
        "main": "adenocarcinoma",
        "partner": "necrosis",
        "first": "lymphoid infiltrate",
        "second": "normal lung",
    },
}
PHRASES["crc5-within"] = PHRASES["crc5"]
SHARE_STEP = 5
TEMPLATES: dict[str, dict[str, str]] = {
    "relation": {"touching": "{main} arising in {partner}.", "apart": "{main} apart from {partner}."},
    "extent": {"": "It makes up {share}% of the tissue"},
    "foci": {"": ", in {foci} foci, the largest of {largest} mm2."},
    "cooccurrence": {
        "both or none": "{first} and {second} go together here.",
        "one of them": "{first} and {second} do not go together here.",
    },
    "first": {
        "absent": "{first} is absent.",
        "same slide": "{first} is on the slide of the {main}.",
        "other slide": "{first} is on the other slide.",
    },
    "second": {"present": "{second} occurs.", "absent": "{second} is missing."},
}
"""Sentence -> value -> its wording. A number's value is in its text."""


@dataclass(frozen=True)
class Stated:
    """What a report states; ``None`` where it does not say."""

    relation: str | None
    share_percent: int | None
    n_foci: int | None
    largest_mm2: float | None
    cooccurrence: str | None
    first: str | None
    second: str | None


def stated(truth: Truth) -> Stated:
    """Return what a report that is right states."""
    return Stated(
        relation=truth.relation,
        share_percent=SHARE_STEP * round(truth.share_percent / SHARE_STEP),
        n_foci=truth.n_foci,
        largest_mm2=max(0.1, round(truth.largest_mm2, 1)),
        cooccurrence="both or none" if (truth.first != "absent") == truth.second else "one of them",
        first=truth.first,
        second="present" if truth.second else "absent",
    )


def compose_report(facts: Stated, source: str) -> str:
    """Write what is stated."""
    values = {
        "relation": facts.relation,
        "cooccurrence": facts.cooccurrence,
        "first": facts.first,
        "second": facts.second,
    }
    words: dict[str, object] = {
        **PHRASES[source],
        "share": facts.share_percent,
        "foci": facts.n_foci,
        "largest": f"{facts.largest_mm2:.1f}",
    }
    parts = [options[values.get(sentence) or ""].format(**words) for sentence, options in TEMPLATES.items()]
    relation, extent, foci, cooccurrence, first, second = (part[0].upper() + part[1:] for part in parts)
    return f"{relation} {extent}{foci} {cooccurrence} {first} {second}"


def all_words(source: str) -> list[str]:
    """Return texts that have every word and number that a report may have."""
    numbers = " ".join([*map(str, range(101)), *(f"{tenth / 10:.1f}" for tenth in range(100))])
    plain = {**PHRASES[source], "share": "", "foci": "", "largest": ""}
    wordings = [wording for options in TEMPLATES.values() for wording in options.values()]
    return [numbers, *(one.format(**plain) for one in wordings)]


def read_report(text: str, source: str) -> Stated:
    """Read what a report states; what is not said in the known wording is not stated."""
    words = " ".join(tokenise(text))
    found: dict[str, str] = {}
    numbers: dict[str, str] = {}
    for sentence, value, pattern in _patterns(source):
        if sentence not in found and (match := pattern.search(words)):
            found[sentence] = value
            numbers |= match.groupdict()
    return Stated(
        relation=found.get("relation"),
        share_percent=int(float(numbers["share"])) if "share" in numbers else None,
        n_foci=int(float(numbers["foci"])) if "foci" in numbers else None,
        largest_mm2=float(numbers["largest"]) if "largest" in numbers else None,
        cooccurrence=found.get("cooccurrence"),
        first=found.get("first"),
        second=found.get("second"),
    )


@cache
def _patterns(source: str) -> list[tuple[str, str, re.Pattern[str]]]:
    """Return (sentence, value, pattern over tokenised text)."""
    places = {name: f"{name}number" for name in ("share", "foci", "largest")}
    patterns = []
    for sentence, options in TEMPLATES.items():
        for value, wording in options.items():
            words = " ".join(tokenise(wording.format(**{**PHRASES[source], **places})))
            pattern = re.escape(words)
            for name, place in places.items():
                pattern = pattern.replace(place, rf"(?P<{name}>\d+(?:\.\d+)?)")
            patterns.append((sentence, value, re.compile(rf"\b{pattern}\b")))
    return patterns


FIELDS = ("a presence", "b share", "c co-occurrence", "d adjacency", "e foci", "e largest", "f same slide")
"""What is judged, by the letters of the tasks in README.md."""


def score(said: Stated, truth: Truth) -> dict[str, bool | None]:
    """Judge each of `FIELDS`; ``None`` where a case does not ask it: the slide of a tissue that is absent.

    The share must be the right step, the largest focus within 0.1 mm2. What is not stated is wrong.
    """
    right = stated(truth)
    largest_error = abs((said.largest_mm2 or -1.0) - (right.largest_mm2 or 0.0))
    outcomes = (
        said.first is not None and (said.first == "absent") == (truth.first == "absent"),
        said.share_percent == right.share_percent,
        said.cooccurrence == right.cooccurrence,
        said.relation == right.relation,
        said.n_foci == right.n_foci,
        largest_error < 0.11,
        None if truth.first == "absent" else said.first == truth.first,
    )
    return dict(zip(FIELDS, outcomes, strict=True))
