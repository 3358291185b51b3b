"""Answers: probabilities as brute force gives them, orders that favour no option, priors that count for nothing."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prompting.conftest import CaptionerOf
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, report_logprobs
from wsi_mivpg.captioner.generation import see
from wsi_mivpg.errors import ModelError, PromptError
from wsi_mivpg.prompting import Question, ask, read_questions
from wsi_mivpg.prompting.ask import summarise, zeroed
from wsi_mivpg.prompting.questions import orders

GRADE = Question("grade", "What is the grade?", ("low", "high", "very high"))


@torch.no_grad()
def direct(captioner: SlideCaptioner, case: CaseBags, question: Question) -> np.ndarray:
    """Return log p of each answer after each order of a question's options, one call each: (orders, answers)."""
    visual = see(captioner, case).visual[None]
    return np.array(
        [
            [
                float(report_logprobs(captioner, visual, captioner.encode_report(one), question.prompt(order)).sum())
                for one in question.choices
            ]
            for order in orders(len(question.choices), 6, 0)
        ]
    )


def shares(logprobs: np.ndarray) -> np.ndarray:
    whole = np.exp(logprobs)
    return whole / whole.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("family", ["llama", "flan-t5"])
def test_probabilities_are_those_of_scoring_every_answer_after_every_order(
    captioner_of: CaptionerOf, cases: list[CaseBags], family: str
):
    captioner = captioner_of(family)
    yes_no = Question("tumour", "Is there tumour?")
    answers = ask(captioner, cases[:2], [GRADE, yes_no], batch_size=4, prior=True)
    assert [(one.case_id, one.question) for one in answers] == [
        (c.case_id, q) for c in cases[:2] for q in (GRADE, yes_no)
    ]
    for one in answers:
        case = next(case for case in cases if case.case_id == one.case_id)
        logprobs, without = direct(captioner, case, one.question), direct(captioner, zeroed(case), one.question)
        lengths = [len(captioner.encode_report(choice)) for choice in one.question.choices]
        expected = {
            "probability": shares(logprobs).mean(axis=0),
            "length_normalised": shares(logprobs / lengths).mean(axis=0),
            "prior_corrected": shares(logprobs - without).mean(axis=0),
            "logprob": logprobs.mean(axis=0),
        }
        for name, values in expected.items():
            np.testing.assert_allclose([getattr(score, name) for score in one.scores], values, rtol=2e-3, atol=1e-6)
        corrected = shares(logprobs - without)
        assert one.orders == math.factorial(len(one.question.choices))
        assert one.answer == one.question.choices[int(expected["prior_corrected"].argmax())]
        assert one.order_sensitivity == pytest.approx(float(np.ptp(corrected, axis=0).max()), abs=1e-4)
        assert [score.tokens for score in one.scores] == lengths


def test_answers_do_not_depend_on_what_is_asked_beside_them(captioner: SlideCaptioner, cases: list[CaseBags]):
    together = ask(captioner, cases, [GRADE], batch_size=8)
    for case, one in zip(cases, together, strict=True):
        (alone,) = ask(captioner, [case], [GRADE], batch_size=1)
        assert alone.answer == one.answer
        assert [s.probability for s in alone.scores] == pytest.approx([s.probability for s in one.scores], abs=1e-5)


def test_a_slide_of_zeros_says_nothing_beyond_the_prior(captioner: SlideCaptioner, cases: list[CaseBags]):
    (answer,) = ask(captioner, [zeroed(cases[0])], [GRADE], prior=True)
    assert [score.prior_corrected for score in answer.scores] == pytest.approx([1 / 3] * 3, abs=1e-4)


def test_an_answer_that_hangs_on_the_order_says_so():
    first_wins = np.log([[0.9, 0.1], [0.1, 0.9]])
    steady = np.log([[0.9, 0.1], [0.9, 0.1]])
    swaying, firm = (summarise("a", Question("q", "?"), one, [1, 1], None) for one in (first_wins, steady))
    assert (swaying.probability, swaying.agreement) == pytest.approx((0.5, 0.5))
    assert swaying.order_sensitivity == pytest.approx(0.8)
    assert (firm.answer, firm.agreement, firm.order_sensitivity) == ("Yes", 1.0, pytest.approx(0, abs=1e-12))
    assert firm.probability == pytest.approx(0.9)


def test_a_long_answer_loses_by_its_sum_and_may_win_by_its_mean():
    logprobs = np.array([[-2.0, -4.0]])
    answer = summarise("a", Question("q", "?", ("short", "long answer")), logprobs, [1, 4], None)
    assert answer.answer == "short"
    assert answer.scores[1].length_normalised > answer.scores[0].length_normalised


@given(count=st.integers(2, 7), limit=st.integers(1, 30), seed=st.integers(0, 5))
def test_orders_differ_and_hold_every_option_at_every_place_equally_often(count: int, limit: int, seed: int):
    listed = orders(count, limit, seed)
    assert len(set(listed)) == len(listed) <= max(limit, count)
    assert all(sorted(order) == list(range(count)) for order in listed)
    for place in range(count):
        assert len(set(Counter(order[place] for order in listed).values())) == 1
    assert listed == orders(count, limit, seed)


def test_questions_come_from_a_file(tmp_path: Path):
    path = tmp_path / "questions.yaml"
    path.write_text("- question: Is there necrosis?\n- id: grade\n  question: Which grade?\n  choices: [low, high]\n")
    assert read_questions(path) == [
        Question("q1", "Is there necrosis?", ("Yes", "No")),
        Question("grade", "Which grade?", ("low", "high")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no list of questions"),
        ("a: [", "cannot read"),
        ("- question: 3", "question 1: needs `question:`"),
        ("- question: A?\n  choices: [yes, no]", "between quotes"),
        ("- question: A?\n  choices: [a]", "two or more"),
        ("- question: A?\n  choices: [a, a]", "two or more"),
        ("- question: ' '", "empty"),
        ("- question: A?\n  answers: [a, b]", "'answers' is unknown"),
        ("- question: A?\n  id: x\n- question: B?\n  id: x", "twice"),
    ],
)
def test_malformed_questions_are_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "questions.yaml"
    path.write_text(text)
    with pytest.raises(PromptError, match=message):
        read_questions(path)


def test_a_case_that_computes_nan_is_named(captioner: SlideCaptioner):
    with pytest.raises(ModelError, match="'broken'"):
        ask(captioner, [CaseBags("broken", torch.full((3, 12), torch.nan), (3,))], [GRADE])
