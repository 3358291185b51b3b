"""Values that cannot be counted, written token by token as their schema allows, and the likeliest ways to differ.

At each step the tokens that may come next share all probability; the product over the steps is the probability of what
was written, among all that may be written so.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wsi_mivpg.prompting.grammar import Vocabulary, allowed
from wsi_mivpg.prompting.reading import DecoderReading, EncoderDecoderReading
from wsi_mivpg.prompting.schema import Field

BRANCHES = 3
"""Ways to differ that are followed, beside null."""


@dataclass(frozen=True)
class Written:
    """What was written in the place of one value.

    Attributes:
        ids: its tokens, the sign behind it included.
        logprob: sum over them, under the constraint.
        ended: the value came to its end within the limit.
        turns: log-probability, place and token of the likeliest ways to have gone on otherwise, best first.
    """

    ids: tuple[int, ...]
    logprob: float
    ended: bool
    turns: tuple[tuple[float, int, int], ...]


@dataclass(frozen=True)
class OpenValue:
    """A value, its tokens (with the sign behind it), and what else was found, by JSON text.

    Attributes:
        text: JSON; None where it came to no end and null stands in its place.
        ids: what the language model is to read.
        probabilities: JSON text -> probability of the ways that were followed and led to it.
    """

    text: str | None
    ids: tuple[int, ...]
    probabilities: dict[str, float]


def find_open(
    reading: DecoderReading | EncoderDecoderReading, vocabulary: Vocabulary, field: Field, end: str, limit: int
) -> list[OpenValue]:
    """Write one value for each row greedily, then follow null and the likeliest other ways.

    Args:
        reading: the rows up to the value; it is left as it is.
        vocabulary: the captioner's.
        field: what may be written.
        end: the sign behind the value.
        limit: most tokens of it.
    """
    count = len(reading.last)
    greedy = _write(reading.rows(range(count)), vocabulary, field, end, [()] * count, limit)
    null = tuple(vocabulary.ids(f" null{end}"))
    places, starts = [], []
    for row, one in enumerate(greedy):
        ways = [null, *((*one.ids[:place], token) for _, place, token in one.turns)]
        places += [row] * len(ways)
        starts += ways
    others = _write(reading.rows(places), vocabulary, field, end, starts, limit)
    found = []
    for row, one in enumerate(greedy):
        # Two ways may share their tokens where a branch is null itself.
        of_row = [other for other, place in zip(others, places, strict=True) if place == row]
        probabilities: dict[str, float] = {}
        for way in {way.ids: way for way in (one, *of_row)}.values():
            text = _json(vocabulary, way, end)
            if text is not None:
                probabilities[text] = probabilities.get(text, 0.0) + math.exp(way.logprob)
        chosen = _json(vocabulary, one, end)
        found.append(OpenValue(chosen, null if chosen is None else one.ids, probabilities))
    return found


def _write(
    reading: DecoderReading | EncoderDecoderReading,
    vocabulary: Vocabulary,
    field: Field,
    end: str,
    starts: Sequence[Sequence[int]],
    limit: int,
) -> list[Written]:
    """Write each row: the tokens that it is given, then the likeliest that may follow, to the value's end."""
    pattern = vocabulary.matcher(field.schema, end)
    matchers = [pattern.deep_copy() for _ in starts]
    ids: list[list[int]] = [[] for _ in starts]
    logprobs = [0.0] * len(starts)
    turns: list[list[tuple[float, int, int]]] = [[] for _ in starts]
    for step in range(limit):
        writing = [row for row, matcher in enumerate(matchers) if not matcher.is_stopped()]
        if not writing:
            break
        more: list[list[int]] = [[] for _ in starts]
        masks = torch.stack([allowed(matchers[row], reading.last.shape[1]) for row in writing])
        scores = reading.last[writing].masked_fill(~masks.to(reading.last.device), -torch.inf).log_softmax(-1).cpu()
        best = scores.topk(min(BRANCHES + 1, scores.shape[1]), dim=-1)
        for row, own, values, tokens in zip(writing, scores, best.values.tolist(), best.indices.tolist(), strict=True):
            given = starts[row]
            token = given[step] if step < len(given) else tokens[0]
            turns[row] += [
                (logprobs[row] + value, step, other)
                for value, other in zip(values, tokens, strict=True)
                if other != token and value > -math.inf
            ]
            logprobs[row] += float(own[token])
            ids[row].append(token)
            matchers[row].consume_token(token)
            more[row] = [token]
        reading.append(more)
    return [
        Written(
            tuple(ids[row]), logprobs[row], matcher.is_accepting(), tuple(sorted(turns[row], reverse=True)[:BRANCHES])
        )
        for row, matcher in enumerate(matchers)
    ]


def _json(vocabulary: Vocabulary, written: Written, end: str) -> str | None:
    """Return the value as evenly spaced JSON, or None where it has no end or is nothing that can be kept."""
    if not written.ended:
        return None
    text = vocabulary.text(list(written.ids))
    try:
        value = json.loads(text[: -len(end)], parse_constant=lambda name: None)
        plain = json.dumps(value, ensure_ascii=False, allow_nan=False)
        plain.encode()
    except ValueError:  # a number beyond all measure, or half of a character
        return None
    return plain


def parsed(text: str | None) -> Any:
    """Return the value that JSON text states; null where there is none."""
    return None if text is None else json.loads(text)
