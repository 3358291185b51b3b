"""Answers to closed questions by likelihood: how probable the model finds each answer, over several orders of options.

Nothing is written and nothing is guessed from a text: every answer is scored to its end token, after every order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.captioner.generation import Seen, see
from wsi_mivpg.errors import ModelError
from wsi_mivpg.prompting.questions import Question, orders
from wsi_mivpg.prompting.reading import start_reading

Scores = npt.NDArray[np.float64]
MAX_ORDERS = 6


@dataclass(frozen=True)
class AnswerScore:
    """One answer of a question.

    Attributes:
        answer: as it is listed.
        probability: among the listed answers, the mean over orders.
        length_normalised: the same from log-probabilities per token rather than from sums, which favour short answers.
        prior_corrected: the same from log-probabilities less those after features that are all zero, so that what the
            model says of no slide counts for nothing; None where it was not asked for.
        logprob: of the answer and its end, natural logarithm; the mean over orders.
        tokens: of the answer, its end included.
        spread: largest less smallest probability over the orders.
    """

    answer: str
    probability: float
    length_normalised: float
    prior_corrected: float | None
    logprob: float
    tokens: int
    spread: float


@dataclass(frozen=True)
class Answer:
    """A question answered for one case.

    Attributes:
        case_id: the case.
        question: what was asked.
        answer: the most probable; by `prior_corrected` where that was asked for.
        probability: of it, of the same kind.
        agreement: share of the orders in which it is the most probable.
        order_sensitivity: the largest `spread` of the answers: 0 where order does not matter, at most 1.
        orders: in how many orders the options were listed.
        scores: of all answers, in the question's order.
    """

    case_id: str
    question: Question
    answer: str
    probability: float
    agreement: float
    order_sensitivity: float
    orders: int
    scores: tuple[AnswerScore, ...]


def ask(
    captioner: SlideCaptioner,
    cases: Sequence[CaseBags],
    questions: Sequence[Question],
    *,
    batch_size: int = 8,
    max_orders: int = MAX_ORDERS,
    prior: bool = False,
    seed: int = 0,
) -> list[Answer]:
    """Answer each question for each case, in this order.

    Args:
        captioner: in evaluation mode.
        cases: each is read once.
        questions: see `Question`.
        batch_size: prompts at a time.
        max_orders: of a question's options; see `questions.orders`.
        prior: also score after zeroed features, and let the difference decide.
        seed: of orders, where there are more than `max_orders`.

    Raises:
        ModelError: training mode, a case that does not fit the model, a question longer than the language model's
            positions, or a model that computes NaN.
    """
    if captioner.training:
        raise ModelError("ask needs evaluation mode; call .eval() first")
    with torch.no_grad():
        seen = [see(captioner, case) for case in cases]
        blank = [see(captioner, zeroed(case)) for case in cases] if prior else []
    answers: dict[tuple[int, int], Answer] = {}
    for column, question in enumerate(questions):
        listed = orders(len(question.choices), max_orders, seed)
        prompts = [question.prompt(order) for order in listed]
        lengths = [len(captioner.encode_report(choice)) for choice in question.choices]
        scored = _score(captioner, seen, question, prompts, batch_size)
        without = _score(captioner, blank, question, prompts, batch_size) if prior else [None] * len(seen)
        for row, (one, logprobs, of_nothing) in enumerate(zip(seen, scored, without, strict=True)):
            answers[row, column] = summarise(one.case_id, question, logprobs, lengths, of_nothing)
    return [answers[row, column] for row in range(len(seen)) for column in range(len(questions))]


def zeroed(case: CaseBags) -> CaseBags:
    """Return a case of as many instances whose features are all zero: a slide that says nothing."""
    return replace(case, instances=torch.zeros(len(case), case.instances.shape[1]))


def summarise(
    case_id: str, question: Question, logprobs: Scores, lengths: Sequence[int], without: Scores | None
) -> Answer:
    """Put together what the orders say.

    Args:
        case_id: the case.
        question: what was asked.
        logprobs: (orders, answers), natural logarithm, of whole answers.
        lengths: tokens of each answer.
        without: the same as `logprobs`, after zeroed features.
    """
    plain = _shares(logprobs)
    per_token = _shares(logprobs / np.asarray(lengths)).mean(axis=0)
    corrected = None if without is None else _shares(logprobs - without)
    deciding = plain if corrected is None else corrected
    best = int(deciding.mean(axis=0).argmax())
    spread = np.ptp(deciding, axis=0)
    scores = tuple(
        AnswerScore(
            choice,
            float(plain[:, place].mean()),
            float(per_token[place]),
            None if corrected is None else float(corrected[:, place].mean()),
            float(logprobs[:, place].mean()),
            lengths[place],
            float(spread[place]),
        )
        for place, choice in enumerate(question.choices)
    )
    return Answer(
        case_id,
        question,
        question.choices[best],
        float(deciding[:, best].mean()),
        float((deciding.argmax(axis=1) == best).mean()),
        float(spread.max()),
        len(logprobs),
        scores,
    )


def _score(
    captioner: SlideCaptioner, seen: Sequence[Seen], question: Question, prompts: Sequence[str], batch_size: int
) -> list[Scores]:
    """Return for each case the log-probability of each answer after each prompt, (prompts, answers)."""
    candidates = [captioner.encode_report(choice) for choice in question.choices]
    ids = [captioner.wording.prompt_ids(prompt) for prompt in prompts]
    captioner.check_length(max(map(len, ids)), max(map(len, candidates)))
    rows = [(one, prompt) for one in seen for prompt in ids]
    logprobs: list[list[float]] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        reading = start_reading(captioner, [one.visual for one, _ in batch], [prompt for _, prompt in batch])
        for (one, _), scored in zip(batch, reading.score(candidates), strict=True):
            sums = [float(tokens.sum()) for tokens in scored]
            if not all(map(math.isfinite, sums)):
                raise ModelError(
                    f"case {one.case_id!r}: the language model computes NaN; hold it in bfloat16 or float32 rather "
                    "than float16, or go back to an earlier checkpoint"
                )
            logprobs.append(sums)
    return [np.array(logprobs[start : start + len(ids)]) for start in range(0, len(rows), len(ids))]


def _shares(logprobs: Scores) -> Scores:
    """Return each row as probabilities."""
    shares: Scores = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    whole: Scores = shares.sum(axis=1, keepdims=True)
    return np.divide(shares, whole)
