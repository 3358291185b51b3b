"""Whether a sentence or a report is right, as one yes or no: what confidence is calibrated on.

Statements are held against equally right wordings of one reference; a wording never makes a statement wrong.
"""

from collections.abc import Iterable, Sequence

from wsi_mivpg.evaluation.clinical.extract import ClinicalFields, read_report
from wsi_mivpg.evaluation.clinical.score import close, flips
from wsi_mivpg.evaluation.clinical.vocabulary import Vocabulary, load_vocabulary

_SERIOUS = frozenset({"malignant", "suspicious"})
_BY_RULE = frozenset({"histological_type", "diagnosis_class", "negation", "uncertainty"})


def is_right(sentence: str, references: Sequence[str]) -> bool:
    """Return whether no statement of a sentence is wrong, numbers included.

    A statement (organ, grade, margin …) is right if a reference makes it, a histological type also if it is more or
    less specific than the reference's; a percentage within 10 points, a size within a tenth, a count exactly; a number
    of which no reference speaks is wrong. A denial is right unless a reference affirms the finding. A sentence without
    any statement is right only if a reference holds its very words.
    """
    words = load_vocabulary()
    own = read_report(sentence)
    if not own.statements and not own.numbers:
        return any(_plain(sentence) in _plain(reference) for reference in references)
    wanted = [read_report(reference) for reference in references]
    for field, said in own.statements.items():
        if field not in _BY_RULE and not said <= _all_values(wanted, field):
            return False
    for name, value in own.numbers.items():
        true = [one.numbers[name] for one in wanted if name in one.numbers]
        if not any(close(name.split(".")[0], value, one) for one in true):
            return False
    return any(_same_diagnosis(own, one, words) and not flips(own, one, words)[0] for one in wanted)


def diagnosis_is_right(report: str, references: Sequence[str]) -> bool:
    """Return whether a report says what is the matter, whatever it gets wrong in extent, numbers and neighbours.

    It calls malignant (or suspicious) what a reference does and nothing else, its histological types are the
    reference's, more or less specific, it states one if the reference does, and it contradicts no finding. Where a
    reference states neither a class nor a type, more than half of its other findings must be stated.
    """
    words = load_vocabulary()
    own = read_report(report)
    for reference in references:
        wanted = read_report(reference)
        true = wanted.statements
        stated = not true.get("histological_type") or bool(own.statements.get("histological_type"))
        if not true.get("histological_type") and not true.get("diagnosis_class"):
            findings = true.get("other_findings", frozenset())
            shared = findings & own.statements.get("other_findings", frozenset())
            stated = 2 * len(shared) > len(findings) if findings else _plain(report) == _plain(reference)
        agrees = _same_class(own, wanted) and _same_diagnosis(own, wanted, words)
        if stated and agrees and not flips(own, wanted, words)[0]:
            return True
    return False


def _same_class(own: ClinicalFields, wanted: ClinicalFields) -> bool:
    serious = [bool(_SERIOUS & one.statements.get("diagnosis_class", frozenset())) for one in (own, wanted)]
    return serious[0] == serious[1]


def _same_diagnosis(own: ClinicalFields, wanted: ClinicalFields, words: Vocabulary) -> bool:
    """Whether every type is one of the reference's, or implies or is implied by one."""

    def implied(name: str) -> set[str]:
        return {name, *words.ancestors(name)}

    return all(
        any(name in implied(true) or true in implied(name) for true in wanted.affirmed)
        for name in own.statements.get("histological_type", frozenset())
    )


def _all_values(wanted: Iterable[ClinicalFields], field: str) -> frozenset[str]:
    return frozenset().union(*(one.statements.get(field, frozenset()) for one in wanted))


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
