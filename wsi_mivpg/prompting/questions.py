"""Questions with a closed set of answers, and the orders in which their options are listed. No model is needed here."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wsi_mivpg.errors import PromptError

YES_NO = ("Yes", "No")
_KEYS = {"id", "question", "choices"}


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        question_id: its name in results.
        text: what is asked.
        choices: the answers that are allowed, at least two.
    """

    question_id: str
    text: str
    choices: tuple[str, ...] = YES_NO

    def __post_init__(self) -> None:
        choices = [choice.strip() for choice in self.choices]
        if not self.text.strip():
            raise PromptError(f"question {self.question_id!r} is empty; say what to ask")
        if len(choices) < 2 or len({*choices}) < len(choices) or not all(choices):
            raise PromptError(
                f"question {self.question_id!r} has the choices {', '.join(map(repr, self.choices)) or 'none'}; "
                "give two or more that differ"
            )

    def prompt(self, order: tuple[int, ...]) -> str:
        """Return what a model is asked, its options listed in an order."""
        options = "".join(f"\n- {self.choices[place]}" for place in order)
        return f"{self.text}\nAnswer with one of these:{options}"


def read_questions(path: Path) -> list[Question]:
    """Read a YAML list of questions: ``question``, and if wanted ``id`` and ``choices`` (else yes or no).

    Raises:
        PromptError: the file cannot be read, or a question in it is malformed; the message says which.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PromptError(f"cannot read questions from {path}: {error}") from error
    if not isinstance(given, list) or not given:
        raise PromptError(
            f"{path} is no list of questions; write `- question: Is there necrosis?`, one below the other"
        )
    questions = [_question(one, f"{path}, question {number}", f"q{number}") for number, one in enumerate(given, 1)]
    names = [one.question_id for one in questions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise PromptError(f"{path}: the id {twice[0]!r} is there twice; give each question its own")
    return questions


def _question(given: Any, where: str, number: str) -> Question:
    if not isinstance(given, dict) or not isinstance(given.get("question"), str):
        raise PromptError(f"{where}: needs `question:` with a text")
    if unknown := sorted(map(str, given.keys() - _KEYS)):
        raise PromptError(f"{where}: {unknown[0]!r} is unknown; there are {', '.join(sorted(_KEYS))}")
    choices = given.get("choices", list(YES_NO))
    if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
        raise PromptError(f"{where}: choices must be a list of texts; put yes, no and numbers between quotes")
    return Question(str(given.get("id", number)), given["question"], tuple(choices))


def orders(count: int, limit: int, seed: int) -> list[tuple[int, ...]]:
    """Return orders of `count` options: all of them if they are at most `limit`, else whole rounds of rotations.

    A round holds every option at every place once, so that no answer gains by where it is listed. At least one round
    is returned, however small the limit.
    """
    if math.factorial(count) <= limit:
        return list(itertools.permutations(range(count)))
    rng = np.random.default_rng(seed)
    found: list[tuple[int, ...]] = []
    base = list(range(count))
    for _ in range(max(1, limit // count)):
        found += [tuple(base[shift:] + base[:shift]) for shift in range(count)]
        base = [int(place) for place in rng.permutation(count)]
    return list(dict.fromkeys(found))
