"""The vocabulary that reports are read with: TOML files of this package, and a user's own on top."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from wsi_mivpg.errors import TextsError

TERM_FIELDS = ("organ", "procedure", "laterality", "invasion", "measure", "concept")
_WORD = re.compile(r"[a-z0-9]+|[,]")


@dataclass(frozen=True)
class Concept:
    """A diagnosis or finding: the more general one it implies, its class, and whether it is no histological type."""

    parent: str | None
    kind: str | None
    general: bool


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Compiled.

    Attributes:
        phrases: for each field and each first word, its (words, value) with the longest first.
        concepts: key -> concept.
        patterns: (field, regular expression, value with {1}, {2} … for groups).
        spellings: (regular expression, replacement), in order.
        language: cues and limits, as in language.toml.
    """

    phrases: Mapping[str, Mapping[str, Sequence[tuple[tuple[str, ...], str]]]]
    concepts: Mapping[str, Concept]
    patterns: Sequence[tuple[str, re.Pattern[str], str]]
    spellings: Sequence[tuple[re.Pattern[str], str]]
    language: Mapping[str, Any]

    def ancestors(self, concept: str) -> tuple[str, ...]:
        """Return what a concept implies, the nearest first."""
        found: list[str] = []
        parent = self.concepts[concept].parent
        while parent is not None and parent not in found:
            found.append(parent)
            parent = self.concepts[parent].parent
        return tuple(found)


@cache
def load_vocabulary(extra: Path | None = None) -> Vocabulary:
    """Load the package's vocabulary, and a user's file over it.

    Args:
        extra: a TOML file of the same form; its values are added to the package's, and phrases of a value that is
            there already are added to it.

    Raises:
        TextsError: the file is missing or not of that form; the message names the entry.
    """
    merged: dict[str, Any] = {}
    folder = resources.files("wsi_mivpg.evaluation.clinical") / "vocabulary"
    for file in sorted((one for one in folder.iterdir() if one.name.endswith(".toml")), key=lambda one: one.name):
        _merge(merged, tomllib.loads(file.read_text(encoding="utf-8")))
    if extra is not None:
        try:
            _merge(merged, tomllib.loads(extra.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TextsError(
                f"cannot read the vocabulary {extra}: {error}; see docs/evaluation.md for its form"
            ) from error
    try:
        return _compiled(merged)
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        raise TextsError(
            f"the vocabulary {extra} is malformed: {error}; see docs/evaluation.md for its form"
        ) from error


def words_of(text: str) -> list[str]:
    """Return the words and commas of a text in lower case, plurals made singular; hyphens separate."""
    return [_singular(word) for word in _WORD.findall(text)]


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("mas") or (len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "as"))):
        return word[:-1]
    return word


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for name, value in new.items():
        known = into.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            into[name] = known + value
        else:
            into[name] = value


def _compiled(raw: Mapping[str, Any]) -> Vocabulary:
    def normal(phrase: str) -> str:
        for pattern, replacement in spellings:
            phrase = pattern.sub(replacement, phrase)
        return phrase

    spellings = [(re.compile(pattern), replacement) for pattern, replacement in raw["spelling"].items()]
    concepts = {
        name: Concept(one.get("parent"), one.get("class"), bool(one.get("general", False)))
        for name, one in raw["concept"].items()
    }
    if orphans := sorted(
        name for name, one in concepts.items() if one.parent is not None and one.parent not in concepts
    ):
        raise ValueError(f"the parent of concept {orphans[0]} is no concept")
    tables: dict[str, Mapping[str, Sequence[str]]] = {field: raw[field] for field in TERM_FIELDS if field != "concept"}
    tables["concept"] = {name: one["phrases"] for name, one in raw["concept"].items()}
    cues = [(kind, place) for kind in ("negation", "uncertainty") for place in ("before", "after", "never")]
    tables["cue"] = {f"{kind}.{place}": raw[kind].get(place, []) for kind, place in cues}
    for place in ("margin", "nodes"):
        tables[place] = raw[place]
    phrases = {field: _by_first_word(table, normal) for field, table in tables.items()}
    patterns = [(one["field"], re.compile(one["regex"]), one["value"]) for one in raw["pattern"]]
    return Vocabulary(phrases, concepts, patterns, spellings, raw)


def _by_first_word(table: Mapping[str, Sequence[str]], normal: Any) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    found: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for value, phrases in table.items():
        if isinstance(phrases, str):
            raise TypeError(f"the phrases of {value} are a text; give a list of texts")
        for phrase in phrases:
            words = tuple(words_of(normal(phrase.lower())))
            found.setdefault(words[0], []).append((words, value))
    for entries in found.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return found
