"""Structured reports: each field of a schema filled for each case, with its probability, and a text made of the values.

A field whose values can be counted is scored whole, value by value; others are written under their grammar
(`constrained`). What stands around the values, JSON or a report's words, is never the model's to choose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.captioner.generation import Seen, see
from wsi_mivpg.errors import ModelError
from wsi_mivpg.prompting.constrained import find_open, parsed
from wsi_mivpg.prompting.grammar import Vocabulary
from wsi_mivpg.prompting.reading import DecoderReading, EncoderDecoderReading, start_reading
from wsi_mivpg.prompting.schema import Field, FieldSchema, literals, nested
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
    parts = _parts(captioner, schema)
    prompt = captioner.wording.prompt_ids(schema.prompt(captioner.config.prompt))
    captioner.check_length(len(prompt), _most_tokens(vocabulary, parts))
    with torch.no_grad():
        seen = [see(captioner, case) for case in bags]
    done: list[Filled] = []
    for start in range(0, len(seen), batch_size):
        batch = seen[start : start + batch_size]
        reading = start_reading(captioner, [one.visual for one in batch], [prompt] * len(batch))
        columns = []
        for part in parts:
            _refuse_nan(reading, batch)
            columns.append(_fill_field(reading, vocabulary, part, schema.sentence is not None))
        _refuse_nan(reading, batch)
        rows = [_until_the_full_stop(list(row)) for row in zip(*columns, strict=True)]
        done += [_filled(schema, one, row) for one, row in zip(batch, rows, strict=True)]
    return done


@dataclass(frozen=True)
class _Part:
    """A field in its place: the text before it, the space that goes with its value, and the sign that ends it."""

    before: str
    field: Field
    space: str
    end: str

    def writings(self) -> list[tuple[int, str]]:
        """Return the place of each value among the field's, with each text that may stand for it.

        A wording with a full stop brings its own end, which is the report's.
        """
        return [
            (place, f"{self.space}{text}{'' if text.endswith('.') else self.end}")
            for place, texts in enumerate(self.field.wordings)
            for text in texts
        ]


def _parts(captioner: SlideCaptioner, schema: FieldSchema) -> list[_Part]:
    texts = literals(schema)
    wording = captioner.wording
    if schema.sentence is not None and wording.template is None and not wording.encoder_decoder:
        texts[0] = f" {texts[0]}"  # it goes on from the prompt's last word, as reports were taught
    parts = []
    for place, field in enumerate(schema.fields):
        before = texts[place][1 if place else 0 :]
        plain = before.removesuffix(" ")
        parts.append(_Part(plain, field, before[len(plain) :], texts[place + 1][0]))
    return parts


def _fill_field(
    reading: DecoderReading | EncoderDecoderReading, vocabulary: Vocabulary, part: _Part, in_words: bool
) -> list[tuple[FilledField, bool]]:
    """Find one field's value for each row, and let the language model read it as its own.

    Returns:
        for each row the field, and whether its wording ended the report.
    """
    field = part.field
    if part.before:
        reading.append([vocabulary.ids(part.before)] * len(reading.last))
    if field.values is None:
        found = find_open(reading, vocabulary, field, part.end, MAX_VALUE_TOKENS)
        reading.append([one.ids for one in found])
        return [(_open_field(field, one.text, one.probabilities), False) for one in found]
    writings = part.writings()
    candidates = [vocabulary.ids(text) for _, text in writings]
    filled, chosen = [], []
    for scored in reading.score(candidates):
        shares = _softmax([float(tokens.sum()) for tokens in scored])
        of_value = [0.0] * len(field.values)
        for (place, _), share in zip(writings, shares, strict=True):
            of_value[place] += share
        best = max(range(len(of_value)), key=of_value.__getitem__)
        likeliest = max((n for n, (place, _) in enumerate(writings) if place == best), key=shares.__getitem__)
        chosen.append(candidates[likeliest])
        ended = in_words and writings[likeliest][1].endswith(".")
        filled.append((_counted_field(field, best, of_value), ended))
    reading.append(chosen)
    return filled


def _counted_field(field: Field, best: int, probabilities: list[float]) -> FilledField:
    pairs = list(zip(field.values or (), probabilities, strict=True))
    others = sorted((pair for place, pair in enumerate(pairs) if place != best), key=_share)
    return FilledField(field.name, *pairs[best], tuple(others), exact=True)


def _open_field(field: Field, text: str | None, probabilities: dict[str, float]) -> FilledField:
    chosen = "null" if text is None else text
    others = sorted(((parsed(other), share) for other, share in probabilities.items() if other != chosen), key=_share)
    share = probabilities.get(chosen, 0.0)
    return FilledField(field.name, parsed(text), share, tuple(others), exact=False, cut=text is None)


def _share(pair: tuple[Any, float]) -> float:
    return -pair[1]


def _until_the_full_stop(fields: Sequence[tuple[FilledField, bool]]) -> list[FilledField]:
    """Return a row's fields; what would stand behind the report's end is null, as surely as the report ends there."""
    kept: list[FilledField] = []
    sure = None
    for field, ended in fields:
        kept.append(field if sure is None else FilledField(field.name, None, sure, (), exact=True))
        if ended and sure is None:
            sure = field.probability
    return kept


def _filled(schema: FieldSchema, seen: Seen, fields: list[FilledField]) -> Filled:
    values = [field.value for field in fields]
    return Filled(seen.case_id, tuple(fields), nested(schema, values), text_of(schema, values), seen)


def text_of(schema: FieldSchema, values: Sequence[Any]) -> str:
    """Return the text that a schema's template makes of values, one a field; None: not assessable.

    Raises:
        PromptError: the template cannot make a text of them.
    """
    by_name = {field.name: value for field, value in zip(schema.fields, values, strict=True)}
    return render(schema.name, schema.template, nested(schema, list(values)), by_name)


def text_of_one(schema: FieldSchema, field: FilledField) -> str:
    """Return what a template says of one value: the lines that differ from a text without any value.

    Raises:
        PromptError: the template cannot make a text of one value alone.
    """
    nothing = [None] * len(schema.fields)
    values = [field.value if one.name == field.name else None for one in schema.fields]
    silent = text_of(schema, nothing).split("\n")
    return "\n".join(line for line in text_of(schema, values).split("\n") if line not in silent)


def _softmax(logprobs: list[float]) -> list[float]:
    top = max(logprobs)
    shares = [math.exp(one - top) for one in logprobs]
    return [share / sum(shares) for share in shares]


def _most_tokens(vocabulary: Vocabulary, parts: Sequence[_Part]) -> int:
    """Return the most tokens that a filled schema can have."""
    values = [
        max((len(vocabulary.ids(text)) for _, text in part.writings()), default=MAX_VALUE_TOKENS) for part in parts
    ]
    return sum(values) + sum(len(vocabulary.ids(part.before)) for part in parts)


def _refuse_nan(reading: DecoderReading | EncoderDecoderReading, seen: Sequence[Seen]) -> None:
    wrong = reading.last.isnan().any(dim=1)
    if wrong.any():
        raise ModelError(
            f"case {seen[int(wrong.nonzero()[0, 0])].case_id!r}: the language model computes NaN; hold it in bfloat16 "
            "or float32 rather than float16, or go back to an earlier checkpoint"
        )
