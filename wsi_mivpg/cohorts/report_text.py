"""Prepares reports: evens spaces and capitals, and drops sections that an H&E slide cannot support.

What a model is asked to write it must be able to see: a gross description, a clinical history or an immunohistochemical
result teaches it to invent. Rules, not a model; the headers and words are in `report_sections.toml`.
"""

import difflib
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError

LetterCase = Literal["keep", "sentence", "lower"]
_IHC = "ihc"
_UNKNOWN = "other"
_MOSTLY = 0.8
"""A text is in capitals where at least this share of its letters is."""
_SENTENCE = re.compile(r"((?<=[.!?;])[ \t]+(?=[\"(]?[A-Z0-9])|(?<=[.!?;:])\n+|\n+(?=[-*•A-Z0-9])|\n{2,})")
"""What parts sentences. A line that is merely broken, by whoever typed it, goes on in the next."""
_CAPITALS_HEADER = r"(?-i:[A-Z][A-Z /&-]{3,40}[A-Z])"
_STAYS_CAPITAL = re.compile(r"\w*\d\w*|[IVX]{2,4}")


@dataclass(frozen=True)
class Section:
    """A part of a report: `name` as in the data file, "" before any header, "other" below one that is not known.

    `header` and `body` are as written, so that all sections together are the text.
    """

    name: str
    header: str
    body: str


@dataclass(frozen=True)
class Prepared:
    """One report: its text, and how many sections of each name and sentences were dropped."""

    text: str
    dropped_sections: Counter[str]
    dropped_sentences: int


@dataclass(frozen=True)
class PreparedCohort:
    """The cases with their prepared reports, and counts.

    Attributes:
        cases: without those of which no report is left.
        reports: reports before.
        changed: reports that are not what they were.
        dropped_sections: name -> reports in which such a section was dropped.
        dropped_sentences: sentences on immunohistochemistry dropped elsewhere.
        words: words before and after.
        emptied: ids of cases of which nothing is left.
    """

    cases: tuple[Case, ...]
    reports: int
    changed: int
    dropped_sections: dict[str, int]
    dropped_sentences: int
    words: tuple[int, int]
    emptied: tuple[str, ...]


def section_names() -> tuple[str, ...]:
    """Return the sections that are known, and so can be dropped."""
    return tuple(_data()["headers"])


def section_name(header: str) -> str:
    """Return the section that a header opens; of one that is not known, the header itself in lower case."""
    plain = " ".join(header.lower().split())
    known = _name_of(plain)
    return plain if known == _UNKNOWN else known


def split_sections(text: str, more: tuple[str, ...] = ()) -> list[Section]:
    """Split a report at its headers; joined again (`header` + `body`), the sections are the text.

    A header stands at the start of a line, with a colon, a dash or nothing behind it, or begins a sentence and has a
    colon. Where the text is not all in capitals, a line's unknown header in capitals ends a section too.

    Args:
        text: the report.
        more: headers that count as well.
    """
    own = {" ".join(header.lower().split()) for header in more}
    found: list[tuple[int, int, str]] = []
    for match in _header_pattern(_in_capitals(text), more).finditer(text):
        name, lead = _name_of(match["header"]), match.start("lead")
        at_line_start = lead == 0 or text[lead - 1] == "\n"
        known = name != _UNKNOWN or " ".join(match["header"].lower().split()) in own
        if at_line_start or (known and match["end"] == ":" and match["header"][0].isupper()):
            found.append((lead, match.end(), name))
    sections = [Section("", "", text[: found[0][0] if found else len(text)])]
    ends = [*(start for start, _, _ in found[1:]), len(text)]
    for (start, end, name), until in zip(found, ends, strict=False):
        sections.append(Section(name, text[start:end], text[end:until]))
    return [section for section in sections if section.header or section.body]


def prepare_report(text: str, drop: Collection[str] = (), letter_case: LetterCase = "keep") -> Prepared:
    """Even a report's spaces and capitals, and drop sections.

    Args:
        text: the report.
        drop: names of sections; with "ihc" also sentences elsewhere that speak of immunohistochemistry.
        letter_case: "keep"; "sentence" writes a text in capitals as sentences, and leaves others; "lower".

    Raises:
        CohortError: a section or letter case is not known.
    """
    if unknown := set(drop) - set(section_names()):
        raise CohortError(f"section {sorted(unknown)[0]!r} is none of {', '.join(section_names())}")
    if letter_case not in ("keep", "sentence", "lower"):
        raise CohortError(f"letter case {letter_case!r} is none of keep, sentence, lower")
    sections = split_sections(even_spaces(text))
    kept = [section for section in sections if section.name not in drop]
    bodies = [_without_ihc(section.body) if _IHC in drop else (section.body, 0) for section in kept]
    # A header that lost all that was below it goes too.
    whole = [
        section.header + body for section, (body, lost) in zip(kept, bodies, strict=True) if body.strip() or not lost
    ]
    return Prepared(
        _with_case(even_spaces("".join(whole)), letter_case),
        Counter({section.name for section in sections} & set(drop)),
        sum(lost for _, lost in bodies),
    )


def prepare_cases(
    cases: Iterable[Case], drop: Collection[str] = (), letter_case: LetterCase = "keep"
) -> PreparedCohort:
    """Prepare every report of the cases (`prepare_report`); cases that had a report and have none left are left out."""
    given = list(cases)
    kept: list[Case] = []
    emptied: list[str] = []
    sections: Counter[str] = Counter()
    changed = sentences = before = after = 0
    for case in given:
        prepared = [prepare_report(text, drop, letter_case) for text in case.reports]
        for text, one in zip(case.reports, prepared, strict=True):
            changed += one.text != text
            sections += one.dropped_sections
            sentences += one.dropped_sentences
            before, after = before + len(text.split()), after + len(one.text.split())
        texts = tuple(one.text for one in prepared if one.text)
        if case.reports and not texts:
            emptied.append(case.case_id)
        else:
            kept.append(replace(case, reports=texts))
    n_reports = sum(len(case.reports) for case in given)
    ordered = {name: sections[name] for name in section_names() if sections[name]}
    return PreparedCohort(tuple(kept), n_reports, changed, ordered, sentences, (before, after), tuple(emptied))


def diff_of(before: Sequence[Case], after: Sequence[Case]) -> str:
    """Return a unified diff of all reports that differ, each headed by its case's id."""
    new = {case.case_id: case.reports for case in after}
    lines: list[str] = []
    for case in before:
        old_lines, new_lines = (_lines(reports) for reports in (case.reports, new.get(case.case_id, ())))
        lines += difflib.unified_diff(old_lines, new_lines, f"{case.case_id} before", f"{case.case_id} after", n=1)
    return "".join(lines)


def even_spaces(text: str) -> str:
    """Return the text with single spaces, no spaces at line ends, at most one empty line, and no control marks."""
    plain = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    plain = "".join(mark for mark in plain if mark in "\n\t" or unicodedata.category(mark) not in ("Cc", "Cf"))
    lines = [" ".join(line.split()) for line in plain.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _without_ihc(body: str) -> tuple[str, int]:
    sentences = _SENTENCE.split(body)
    kept: list[str] = []
    lost = 0
    for sentence, gap in zip(sentences[::2], [*sentences[1::2], ""], strict=True):
        if _ihc_pattern().search(sentence):
            lost += 1
            kept.append("\n" if "\n" in gap and not "".join(kept[-1:]).endswith("\n") else "")
        else:
            kept.append(sentence + gap)
    return "".join(kept), lost


def _with_case(text: str, letter_case: LetterCase) -> str:
    if letter_case == "lower":
        return text.lower()
    if letter_case == "keep" or not _in_capitals(text):
        return text
    words = re.sub(r"\w+", lambda word: word[0] if _STAYS_CAPITAL.fullmatch(word[0]) else word[0].lower(), text)
    return re.sub(r"(?:^|(?<=[.!?:]\s)|(?<=\n))[a-z]", lambda letter: letter[0].upper(), words)


def _in_capitals(text: str) -> bool:
    letters = [mark for mark in text if mark.isalpha()]
    return bool(letters) and sum(mark.isupper() for mark in letters) >= _MOSTLY * len(letters)


def _lines(reports: Sequence[str]) -> list[str]:
    return [line + "\n" for report in reports for line in report.splitlines()]


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    text = resources.files("wsi_mivpg.cohorts").joinpath("report_sections.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@lru_cache(maxsize=16)
def _header_pattern(capitals: bool, more: tuple[str, ...]) -> re.Pattern[str]:
    listed = [header for headers in _data()["headers"].values() for header in headers]
    known = sorted([*listed, *(" ".join(header.split()) for header in more)], key=len, reverse=True)
    every = "|".join(re.escape(header).replace(r"\ ", r"[ \t]+") for header in known)
    lead = r"(?P<lead>(?:^[ \t]*(?:(?:[A-H]|\d{1,2})[.)][ \t]*)?|(?<=[.;!?])[ \t]+))"
    # Without a colon a header has its line for itself; with a dash, the dash stands between spaces.
    end = r"[ \t]*(?P<end>:|[ \t][-–][ \t]|$)"
    other = "" if capitals else rf"|{_CAPITALS_HEADER}(?=[ \t]*(?::|$))"
    return re.compile(rf"{lead}(?P<header>(?:{every})(?=[ \t]*(?::|[ \t][-–][ \t]|$)){other}){end}", re.I | re.M)


@lru_cache(maxsize=1)
def _ihc_pattern() -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z])(?:{'|'.join(_data()['words'][_IHC])})(?![A-Za-z0-9])", re.IGNORECASE)


def _name_of(header: str) -> str:
    plain = " ".join(header.lower().split())
    return next((name for name, headers in _data()["headers"].items() if plain in headers), _UNKNOWN)
