"""Structured reports: each field of a schema filled for each case, with its probability, and a text made of the values.

A field whose values can be counted is scored whole, value by value; others are written under their grammar
(`constrained`). The JSON around the values is never the model's to choose.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.captioner.generation import Seen, see
from wsi_mivpg.errors import ModelError
from wsi_mivpg.prompting.constrained import find_open, parsed
from wsi_mivpg.prompting.grammar import Vocabulary
from wsi_mivpg.prompting.reading import DecoderReading, EncoderDecoderReading, start_reading
from wsi_mivpg.prompting.schema import Field, FieldSchema, as_json, literals, nested
from wsi_mivpg.prompting.template import render

MAX_VALUE_TOKENS = 48
"""Of a value that cannot be counted; one that is longer is not kept."""


@dataclass(frozen=True)
class FilledField:
    """One field's value.

    Attributes:
        name: with dots between its groups.
        value: as JSON has it; None: not assessable, or `cut`.
        probability: of the value. Where `exact`, among all that the schema allows; else of the ways to write it that
            were followed, so that it may be more.
        alternatives: other values and their probabilities, most probable first; where `exact`, all of them.
        exact: the schema's values can be counted, and each was scored.
        cut: what was written came to no end, and null stands in its place.
    """

    name: str
    value: Any
    probability: float
    alternatives: tuple[tuple[Any, float], ...]
    exact: bool
    cut: bool = False


@dataclass(frozen=True, eq=False)
class Filled:
    """A case's values, as fields and as the schema's object, the text made of them, and what the adapter saw."""

    case_id: str
    fields: tuple[FilledField, ...]
    values: dict[str, Any]
    text: str
    seen: Seen


def fill(captioner: SlideCaptioner, bags: Sequence[CaseBags], schema: FieldSchema, batch_size: int = 8) -> list[Filled]:
    """Fill a schema for each case, and make its text.

    Args:
        captioner: in evaluation mode.
        bags: the cases; each is read once.
        schema: see `load_schema`.
        batch_size: cases at a time.

    Raises:
        ModelError: a case does not fit the model, its tokenizer cannot write JSON, the schema is longer than the
            language model's positions, or it computes NaN.
        PromptError: the template cannot make a text of the values.
    """
    if captioner.training:
        raise ModelError("fill needs evaluation mode; call .eval() first")
    vocabulary = Vocabulary.of(captioner)
    prompt = captioner.wording.prompt_ids(schema.prompt(captioner.config.prompt))
    captioner.check_length(len(prompt), _most_tokens(vocabulary, schema))
    with torch.no_grad():
        seen = [see(captioner, case) for case in bags]
    done: list[Filled] = []
    for start in range(0, len(seen), batch_size):
        batch = seen[start : start + batch_size]
        reading = start_reading(captioner, [one.visual for one in batch], [prompt] * len(batch))
        _refuse_nan(reading, batch)
        columns = [_fill_field(reading, vocabulary, *part) for part in _parts(schema)]
        done += [_filled(schema, one, list(row)) for one, row in zip(batch, zip(*columns, strict=True), strict=True)]
    return done


def _parts(schema: FieldSchema) -> Iterator[tuple[str, Field, str]]:
    """Yield for each field the JSON before it, and the sign behind it, which begins the JSON before the next."""
    texts = literals(schema)
    for place, field in enumerate(schema.fields):
        yield texts[place][1 if place else 0 :], field, texts[place + 1][0]


def _fill_field(
    reading: DecoderReading | EncoderDecoderReading, vocabulary: Vocabulary, before: str, field: Field, end: str
) -> list[FilledField]:
    """Find one field's value for each row, and let the language model read it as its own."""
    reading.append([vocabulary.ids(before)] * len(reading.last))
    if field.values is None:
        found = find_open(reading, vocabulary, field, end, MAX_VALUE_TOKENS)
        reading.append([one.ids for one in found])
        return [_open_field(field, one.text, one.probabilities) for one in found]
    candidates = [vocabulary.ids(f" {as_json(value)}{end}") for value in field.values]
    probabilities = [_softmax([float(one.sum()) for one in row]) for row in reading.score(candidates)]
    best = [max(range(len(row)), key=row.__getitem__) for row in probabilities]
    reading.append([candidates[place] for place in best])
    return [_closed_field(field, place, row) for place, row in zip(best, probabilities, strict=True)]


def _closed_field(field: Field, best: int, probabilities: list[float]) -> FilledField:
    values = field.values or ()
    others = sorted(
        (
            (value, share)
            for place, (value, share) in enumerate(zip(values, probabilities, strict=True))
            if place != best
        ),
        key=lambda pair: -pair[1],
    )
    return FilledField(field.name, values[best], probabilities[best], tuple(others), exact=True)


def _open_field(field: Field, text: str | None, probabilities: dict[str, float]) -> FilledField:
    chosen = "null" if text is None else text
    others = sorted(((parsed(other), share) for other, share in probabilities.items() if other != chosen), key=_share)
    share = probabilities.get(chosen, 0.0)
    return FilledField(field.name, parsed(text), share, tuple(others), exact=False, cut=text is None)


def _share(pair: tuple[Any, float]) -> float:
    return -pair[1]


def _filled(schema: FieldSchema, seen: Seen, fields: list[FilledField]) -> Filled:
    values = nested(schema, [field.value for field in fields])
    text = render(schema.name, schema.template, values, {field.name: field.value for field in fields})
    return Filled(seen.case_id, tuple(fields), values, text, seen)


def _softmax(logprobs: list[float]) -> list[float]:
    top = max(logprobs)
    shares = [math.exp(one - top) for one in logprobs]
    return [share / sum(shares) for share in shares]


def _most_tokens(vocabulary: Vocabulary, schema: FieldSchema) -> int:
    """Return the most tokens that a filled schema can have."""
    total = 0
    for before, field, end in _parts(schema):
        lengths = [len(vocabulary.ids(f" {as_json(value)}{end}")) for value in field.values or ()]
        total += len(vocabulary.ids(before)) + max(lengths, default=MAX_VALUE_TOKENS)
    return total


def _refuse_nan(reading: DecoderReading | EncoderDecoderReading, seen: Sequence[Seen]) -> None:
    wrong = reading.last.isnan().any(dim=1)
    if wrong.any():
        raise ModelError(
            f"case {seen[int(wrong.nonzero()[0, 0])].case_id!r}: the language model computes NaN; hold it in bfloat16 "
            "or float32 rather than float16, or go back to an earlier checkpoint"
        )
