"""Reports in named sections: what to ask for, and which of them a text has. No model is needed here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_mivpg.cohorts.report_text import section_name, split_sections
from wsi_mivpg.errors import PromptError

_NUMBER = re.compile(r"^(?:[A-H]|\d{1,2})[.)]\s*")


@dataclass(frozen=True)
class Sections:
    """A text taken apart.

    Attributes:
        found: name as it was asked for -> text below its header, in the order of the text; the same header twice is
            joined.
        missing: names that have no text.
        unknown: headers that were not asked for, as written.
        before: text before the first header.
    """

    found: dict[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    before: str


def section_names(listed: str) -> tuple[str, ...]:
    """Return the names in a list as "Findings;Final diagnosis"."""
    return tuple(name.strip() for name in listed.split(";") if name.strip())


def sections_prompt(own: str, names: Sequence[str]) -> str:
    """Return what a model is asked, after the words of its own prompt.

    Raises:
        PromptError: no section is named, or two names mean the same.
    """
    _check(names)
    headers = "".join(f"\n{name.strip().rstrip(':')}:" for name in names)
    return f"{own}\nWrite these sections, each below its header:{headers}"


def parse_sections(text: str, names: Sequence[str]) -> Sections:
    """Take a report apart at its headers.

    A header counts as the section that was asked for by any of its usual names: "Diagnosis:" is "Final diagnosis".

    Raises:
        PromptError: no section is named, or two names mean the same.
    """
    asked = _check(names)
    found: dict[str, str] = {}
    unknown: list[str] = []
    before = ""
    for section in split_sections(text, more=tuple(asked.values())):
        header, body = _NUMBER.sub("", section.header.strip(" \t\n:-–.;")), section.body.strip()
        name = asked.get(section_name(header))
        if not section.header:
            before = body
        elif name is None:
            unknown.append(header)
        elif body:
            found[name] = "\n".join(filter(None, [found.get(name), body]))
    return Sections(found, tuple(name for name in asked.values() if name not in found), tuple(unknown), before)


def _check(names: Sequence[str]) -> dict[str, str]:
    """Return what each name means -> the name."""
    plain = [name.strip().rstrip(":").strip() for name in names]
    if not plain or not all(plain):
        raise PromptError("no section is named; give their headers, as 'Microscopic description;Final diagnosis'")
    meanings: dict[str, str] = {}
    for name in plain:
        meaning = section_name(name)
        if meaning in meanings:
            raise PromptError(f"the sections {meanings[meaning]!r} and {name!r} are the same; name one of them")
        meanings[meaning] = name
    return meanings
