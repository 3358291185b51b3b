"""The statements of one report, read by fixed rules: no model, the same text always gives the same fields.

What the text does not state is not there, never guessed. A denial reaches from its cue to the end of the clause, and
past a comma only inside a list that ends in "or" or "nor".
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from wsi_mivpg.evaluation.clinical.vocabulary import Vocabulary, load_vocabulary, words_of

_CLAUSE_END = re.compile(r"[;\n]|\.(?!\d)|(?<!\d)\.(?=\d)")
# Numbers begin where no digit stands before, or a long row of digits would be tried from each of them.
_PERCENT = re.compile(
    r"(?:(?<![\d.])(\d{1,6}(?:\.\d{1,6})?) ?%? ?(?:-|–|to) ?)?[<>≤≥~]? ?(?<![\d.])(\d{1,6}(?:\.\d{1,6})?) ?"
    r"(?:%|percent\b|per cent\b)"
)
_SIZE = re.compile(
    r"(?<![\d.])(\d{1,6}(?:\.\d{1,6})?)((?: ?(?:cm|mm)? ?[x×] ?\d{1,6}(?:\.\d{1,6})?){0,3}) ?(cm|mm|µm|um|μm)\b"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MILLIMETRES = {"cm": 10.0, "mm": 1.0, "µm": 1e-3, "um": 1e-3, "μm": 1e-3}
_NODES = re.compile(r"\b(\d{1,3})\s*(?:/|of|out of)\s*(\d{1,3})\b")
_FOCI = re.compile(r"\b(\d{1,6}|an?|single|one|two|three|four|five|six)\s+(?:separate\s+|single\s+)?foc(?:us|i)\b")
_COUNTS = {"a": 1, "an": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_DECIMAL_COMMA = re.compile(r"(\d),(\d{1,2})(?= ?(?:cm|mm|x|×|%))")
_BLANKS = re.compile(r"[^\S\n]+")
_NEAR = 300  # characters beside a percentage in which its measure is looked for


@dataclass(frozen=True)
class ClinicalFields:
    """What a report states.

    Attributes:
        statements: field -> its values, from: organ and procedure (of the first clause that names one),
            diagnosis_class, histological_type, other_findings, grade, laterality, margin, nodes, invasion, negation
            (findings that are denied), uncertainty (findings that are doubted).
        numbers: measure -> value: "percentage.extent" and other percentages, "size_mm", "margin_distance_mm",
            "nodes_positive", "nodes_examined", "foci".
        affirmed: findings that are stated to be there, doubted ones too.
        denied: findings that are stated not to be there.
    """

    statements: Mapping[str, frozenset[str]]
    numbers: Mapping[str, float]
    affirmed: frozenset[str]
    denied: frozenset[str]


@dataclass(frozen=True)
class _Mention:
    value: str
    start: int
    end: int


def read_report(text: str, vocabulary: Vocabulary | None = None) -> ClinicalFields:
    """Read the fields of one report; a text without facts gives empty ones."""
    return _read(text, vocabulary or load_vocabulary())


def mentioned_terms(text: str) -> frozenset[str]:
    """Return every term of the package's vocabulary that a text names, denied or not."""
    vocabulary = load_vocabulary()
    return frozenset(
        mention.value
        for _, words in _clauses(_normal(text, vocabulary))
        for field in ("organ", "procedure", "laterality", "invasion", "measure", "concept")
        for mention in _mentions(words, field, vocabulary)
    )


@lru_cache(maxsize=100_000)
def _read(text: str, vocabulary: Vocabulary) -> ClinicalFields:
    values: dict[str, set[str]] = {}
    numbers: dict[str, float] = {}
    affirmed: set[str] = set()
    denied: set[str] = set()
    doubted: set[str] = set()
    normal = _normal(text, vocabulary)
    for clause, words in _clauses(normal):
        for field in ("organ", "procedure", "laterality"):
            if field == "laterality" or not values.get(field):  # what is named later is where something spread to
                values.setdefault(field, set()).update(mention.value for mention in _mentions(words, field, vocabulary))
        cues = _Cues(words, vocabulary)
        for mention in _mentions(words, "concept", vocabulary):
            is_doubted = cues.reach(mention, "uncertainty")
            if not is_doubted and cues.reach(mention, "negation"):
                denied.add(mention.value)
            else:
                affirmed.add(mention.value)
                doubted.update({mention.value} if is_doubted else ())
        for mention in _mentions(words, "invasion", vocabulary):
            state = "absent" if cues.reach(mention, "negation") else "present"
            values.setdefault("invasion", set()).add(f"{mention.value}:{state}")
        for place, word in (("margin", "margin"), ("nodes", "node")):
            if word in words and (status := _state(words, place, vocabulary)):
                values.setdefault(place, set()).add(status)
        _read_numbers(clause, words, numbers, vocabulary)
    if "nodes_positive" in numbers:
        values["nodes"] = {"positive" if numbers["nodes_positive"] else "negative"}
    for field, pattern, value in vocabulary.patterns:
        for match in pattern.finditer(normal):
            filled = re.sub(r"\{(\d)\}", lambda group, found=match: found[int(group[1])], value)  # type: ignore[misc]
            values.setdefault(field, set()).add(filled)
    found = {name: vocabulary.concepts[name] for name in affirmed if not vocabulary.concepts[name].general}
    values["histological_type"] = _most_specific({name for name in found if found[name].kind != "other"}, vocabulary)
    values["other_findings"] = {name for name in found if found[name].kind == "other"}
    values["diagnosis_class"] = _classes(affirmed, denied, doubted, vocabulary)
    values["negation"], values["uncertainty"] = denied, doubted
    statements = {field: frozenset(found) for field, found in values.items() if found}
    return ClinicalFields(statements, numbers, frozenset(affirmed), frozenset(denied))


def _normal(text: str, vocabulary: Vocabulary) -> str:
    found = _BLANKS.sub(" ", text.lower())
    found = _DECIMAL_COMMA.sub(r"\1.\2", found)
    for pattern, replacement in vocabulary.spellings:
        found = pattern.sub(replacement, found)
    return found


def _clauses(normal: str) -> Iterator[tuple[str, list[str]]]:
    for clause in _CLAUSE_END.split(normal):
        if clause.strip():
            yield clause, words_of(clause)


def _mentions(words: list[str], field: str, vocabulary: Vocabulary) -> list[_Mention]:
    """The phrases of a field, from left to right; at one place the longest wins, and none overlap."""
    known, found, at = vocabulary.phrases[field], [], 0
    while at < len(words):
        for phrase, value in known.get(words[at], ()):
            if tuple(words[at : at + len(phrase)]) == phrase:
                found.append(_Mention(value, at, at + len(phrase)))
                at += len(phrase) - 1
                break
        at += 1
    return found


class _Cues:
    """The cues of one clause and what they are about; a long clause costs no more a word than a short one."""

    def __init__(self, words: list[str], vocabulary: Vocabulary) -> None:
        self._words = words
        self._scope = vocabulary.language["scope"]
        self._of_kind: dict[str, list[_Mention]] = {}
        # Of two cues at one place the longer counts: "not only" denies nothing.
        for cue in _mentions(words, "cue", vocabulary):
            self._of_kind.setdefault(cue.value, []).append(cue)
        stops = {",", *self._scope["ends"]}
        self._stops = [place for place, word in enumerate(words) if word in stops]
        self._last_or = max((place for place, word in enumerate(words) if word in self._scope["lists"]), default=-1)

    def reach(self, mention: _Mention, kind: str) -> bool:
        """Return whether a cue of a kind, before the mention or after it, is about it."""
        before = self._of_kind.get(f"{kind}.before", [])
        for row in range(bisect_right(before, mention.start, key=lambda cue: cue.end) - 1, -1, -1):
            if mention.start - before[row].end > self._scope["longest"]:
                break
            if self._leads_from(before[row].end, mention.start):
                return True
        after = self._of_kind.get(f"{kind}.after", [])
        nearest = bisect_left(after, mention.end, key=lambda cue: cue.start)
        stop = bisect_left(self._stops, mention.end)
        return nearest < len(after) and (stop == len(self._stops) or after[nearest].start <= self._stops[stop])

    def _leads_from(self, cue_end: int, start: int) -> bool:
        between = self._words[cue_end:start]
        if set(between) & set(self._scope["ends"]):
            return False
        return "," not in between or self._last_or > cue_end + between.index(",")


def _state(words: list[str], place: str, vocabulary: Vocabulary) -> str | None:
    found = _mentions(words, place, vocabulary)
    return next(
        (state for state in ("negative", "close", "positive") if any(one.value == state for one in found)), None
    )


def _classes(affirmed: set[str], denied: set[str], doubted: set[str], vocabulary: Vocabulary) -> set[str]:
    found = set()
    for name in affirmed:
        kind = vocabulary.concepts[name].kind
        if kind not in (None, "other"):
            found.add("suspicious" if name in doubted and kind == "malignant" else kind)
    if not found and any(name == "tumor" or vocabulary.concepts[name].kind == "malignant" for name in denied):
        return {"benign"}
    return {kind for kind in found if kind}


def _most_specific(types: set[str], vocabulary: Vocabulary) -> set[str]:
    return types - {ancestor for name in types for ancestor in vocabulary.ancestors(name)}


def _read_numbers(clause: str, words: list[str], numbers: dict[str, float], vocabulary: Vocabulary) -> None:
    """Add the clause's numbers; of two for one measure the first stays, and of sizes the largest."""
    for match in _PERCENT.finditer(clause):
        low, high = float(match[1] or match[2]), float(match[2])
        measure = _measure(
            clause[max(match.start() - _NEAR, 0) : match.start()],
            clause[match.end() : match.end() + _NEAR],
            vocabulary,
        )
        numbers.setdefault(f"percentage.{measure}", (low + high) / 2)
    of_margin = "margin" in words
    for match in _SIZE.finditer(clause):
        largest = max(float(number) for number in _NUMBER.findall(match[1] + match[2])) * _MILLIMETRES[match[3]]
        if of_margin:
            numbers.setdefault("margin_distance_mm", largest)
        else:
            numbers["size_mm"] = max(numbers.get("size_mm", 0.0), largest)
    if "node" in words and (counted := _NODES.search(clause)):
        numbers.setdefault("nodes_positive", float(counted[1]))
        numbers.setdefault("nodes_examined", float(counted[2]))
    if foci := _FOCI.search(clause):
        numbers.setdefault("foci", float(_COUNTS.get(foci[1]) or foci[1]))


def _measure(before: str, after: str, vocabulary: Vocabulary) -> str:
    """What a percentage is of: the measure just before it, with linking words between, or just after it."""
    limits = vocabulary.language["percentage"]
    own, following = words_of(before), words_of(after)
    named = _mentions(own, "measure", vocabulary)
    if named:
        between = own[named[-1].end :]
        links = {word for link in limits["links"] for word in words_of(link)}
        if len(between) <= limits["reach_before"] and set(between) <= links:
            return named[-1].value
    later = _mentions(following, "measure", vocabulary)
    if later and later[0].start < limits["reach_after"]:
        return later[0].value
    return "extent"
