"""Structured reports for commands: a schema's values as `FieldValue`s, and its text as if the model had written it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wsi_mivpg.captioner import CaseBags, Generated, SlideCaptioner, report_logprobs
from wsi_mivpg.prompting import FieldSchema, Filled, FilledField, fill, text_of
from wsi_mivpg.reports import FieldValue
from wsi_mivpg.trust import FieldConfidence

ALTERNATIVES = 5
"""Other values of a field that a report names, the most probable first."""


@dataclass(frozen=True, eq=False)
class WrittenFields:
    """A case's fields, and the text made of them with its tokens and their log-probabilities under the own prompt."""

    generated: Generated
    fields: tuple[FieldValue, ...]


def write_fields(
    captioner: SlideCaptioner,
    cases: Sequence[CaseBags],
    schema: FieldSchema,
    batch_size: int,
    known: FieldConfidence | None = None,
) -> list[WrittenFields]:
    """Fill a schema for each case; what `SlideCaptioner.generate` is for free text.

    A value whose confidence is below the threshold is kept in its field, and the text is made without it.

    Args:
        captioner: in evaluation mode.
        cases: each is read once.
        schema: what to fill.
        batch_size: cases at a time.
        known: what calibration found of this schema; None: nothing.

    Raises:
        ModelError: a case does not fit the model, or the text is longer than the language model's positions.
        PromptError: the template cannot make a text of the values.
    """
    written = []
    for filled in fill(captioner, cases, schema, batch_size):
        fields = tuple(_field_value(one, known) for one in filled.fields)
        told = [one.value if field.assessable else None for one, field in zip(filled.fields, fields, strict=True)]
        written.append(WrittenFields(_generated(captioner, filled, text_of(schema, told)), fields))
    return written


@torch.no_grad()
def _generated(captioner: SlideCaptioner, filled: Filled, text: str) -> Generated:
    """Return the text as a generated one: its log-probabilities are those of the same words written freely."""
    ids = captioner.encode_report(text)
    logprobs = report_logprobs(captioner, filled.seen.visual[None], ids)[0].cpu()
    return Generated(
        filled.case_id,
        captioner.config.prompt,
        0,
        text,
        tuple(ids),
        logprobs,
        float(logprobs.mean()),
        filled.seen.attention,
        hit_length_limit=False,
        flags=() if text else ("empty",),
    )


def _field_value(field: FilledField, known: FieldConfidence | None) -> FieldValue:
    is_told = field.value is not None
    confidence = known.of(field.name, field.probability) if known is not None and is_told else None
    return FieldValue(
        name=field.name,
        value=_scalar(field.value),
        probability=field.probability,
        alternatives=tuple((_shown(value), share) for value, share in field.alternatives[:ALTERNATIVES]),
        confidence=confidence,
        assessable=is_told and (known is None or confidence is None or confidence >= known.confidence.threshold),
    )


def _scalar(value: Any) -> str | int | float | bool | None:
    """Return lists and objects as JSON text, which is what a report's field can hold."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
