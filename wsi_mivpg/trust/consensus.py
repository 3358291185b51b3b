"""Several texts of one case: which agrees most with the others (minimum Bayes risk), and where they differ.

Texts go in; agreement is that of their statements, and of their words where they state nothing.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from wsi_mivpg.evaluation.clinical import ClinicalFields, read_report
from wsi_mivpg.evaluation.clinical.score import close

_MOST_ALTERNATIVES = 3


def similarity(one: str, other: str) -> float:
    """Return how far two texts say the same, 0..1: F1 over their statements and numbers.

    A number agrees as the evaluation has it (a percentage within 10 points). Where neither text states anything, it is
    F1 over their words.
    """
    own, wanted = read_report(one), read_report(other)
    n_own, n_wanted = _count(own), _count(wanted)
    if not n_own and not n_wanted:
        words = [Counter(text.lower().split()) for text in (one, other)]
        shared = (words[0] & words[1]).total()
        total = words[0].total() + words[1].total()
        return 2 * shared / total if total else 1.0
    fields = own.statements.keys() & wanted.statements.keys()
    shared = sum(len(own.statements[field] & wanted.statements[field]) for field in fields)
    shared += sum(
        close(name.split(".")[0], own.numbers[name], wanted.numbers[name])
        and close(name.split(".")[0], wanted.numbers[name], own.numbers[name])
        for name in own.numbers.keys() & wanted.numbers.keys()
    )
    return 2 * shared / (n_own + n_wanted)


def choose(texts: Sequence[str]) -> tuple[int, float]:
    """Return the place of the text with the highest mean similarity to the others, and that mean; the first of equals.

    A single text agrees with itself: (0, 1.0).
    """
    if len(texts) < 2:
        return 0, 1.0
    between = np.array([[similarity(one, other) for other in texts] for one in texts])
    mean = (between.sum(axis=1) - between.diagonal()) / (len(texts) - 1)
    best = int(np.argmax(np.round(mean, 12)))
    return best, float(mean[best])


def agreement(sentence: str, others: Sequence[Sequence[str]]) -> float:
    """Return the mean over the other texts of how well their best sentence says this one, 0..1; 1 without any."""
    if not others:
        return 1.0
    return float(np.mean([max((similarity(sentence, one) for one in text), default=0.0) for text in others]))


def alternatives(sentence: str, others: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return what other texts say in a sentence's place and mean otherwise, most frequent first, at most three.

    In its place stands the sentence of a text that is most similar; one that shares nothing is about something else.
    """
    found: Counter[str] = Counter()
    for text in others:
        scored = [(similarity(sentence, one), one) for one in text]
        best, said = max(scored, key=lambda pair: pair[0], default=(0.0, ""))
        if 0 < best < 1 and all(similarity(said, known) < 1 for known in found):
            found[said] += 1
        elif 0 < best < 1:
            found[next(known for known in found if similarity(said, known) == 1)] += 1
    return tuple(said for said, _ in found.most_common(_MOST_ALTERNATIVES))


def _count(fields: ClinicalFields) -> int:
    return sum(len(values) for values in fields.statements.values()) + len(fields.numbers)
