"""Structured reports for commands: a schema's values as `FieldValue`s, and its text as if the model had written it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wsi_mivpg.captioner import CaseBags, Generated, SlideCaptioner, report_logprobs
from wsi_mivpg.prompting import FieldSchema, Filled, FilledField, fill
from wsi_mivpg.reports import FieldValue

ALTERNATIVES = 5
"""Other values of a field that a report names, the most probable first."""


@dataclass(frozen=True, eq=False)
class WrittenFields:
    """A case's fields, and the text made of them with its tokens and their log-probabilities under the own prompt."""

    generated: Generated
    fields: tuple[FieldValue, ...]


def write_fields(
    captioner: SlideCaptioner, cases: Sequence[CaseBags], schema: FieldSchema, batch_size: int
) -> list[WrittenFields]:
    """Fill a schema for each case; what `SlideCaptioner.generate` is for free text.

    Raises:
        ModelError: a case does not fit the model, or the text is longer than the language model's positions.
        PromptError: the template cannot make a text of the values.
    """
    filled = fill(captioner, cases, schema, batch_size)
    return [WrittenFields(_generated(captioner, one), tuple(map(_field_value, one.fields))) for one in filled]


@torch.no_grad()
def _generated(captioner: SlideCaptioner, filled: Filled) -> Generated:
    """Return the text as a generated one: its log-probabilities are those of the same words written freely."""
    ids = captioner.encode_report(filled.text)
    logprobs = report_logprobs(captioner, filled.seen.visual[None], ids)[0].cpu()
    return Generated(
        filled.case_id,
        captioner.config.prompt,
        0,
        filled.text,
        tuple(ids),
        logprobs,
        float(logprobs.mean()),
        filled.seen.attention,
        hit_length_limit=False,
        flags=() if filled.text else ("empty",),
    )


def _field_value(field: FilledField) -> FieldValue:
    return FieldValue(
        name=field.name,
        value=_scalar(field.value),
        probability=field.probability,
        alternatives=tuple((_shown(value), share) for value, share in field.alternatives[:ALTERNATIVES]),
        assessable=field.value is not None,
    )


def _scalar(value: Any) -> str | int | float | bool | None:
    """Return lists and objects as JSON text, which is what a report's field can hold."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
