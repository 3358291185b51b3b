"""Fills schemas for calibration cases and holds each value against what is true of the case; `trust` fits on that."""

from collections.abc import Sequence
from typing import Any

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.evaluation.field_values import statement_is_right, true_values, value_is_right
from wsi_mivpg.prompting import FieldSchema, Filled, fill, text_of
from wsi_mivpg.trust import JudgedField


def judged_fields(
    captioner: SlideCaptioner, cases: Sequence[tuple[Case, CaseBags]], schema: FieldSchema
) -> list[JudgedField]:
    """Fill a schema for cases, in one batch, and return the values that could be judged.

    A value is held against the manifest's true one where it states one, else what the template says of that value
    alone against the reports. A field without a value is not judged: nothing is told of it.

    Raises:
        CohortError: the manifest's true values are no object.
        ModelError: a case does not fit the model.
        PromptError: the template cannot make a text of one value alone.
    """
    found = []
    for (case, _), filled in zip(cases, fill(captioner, [bags for _, bags in cases], schema, len(cases)), strict=True):
        true = true_values(case, [field.name for field in schema.fields])
        for place, field in enumerate(filled.fields):
            if field.value is None:
                continue
            if field.name in true:
                right: bool | None = value_is_right(field.name, field.value, true[field.name])
            else:
                right = statement_is_right(_told_alone(schema, filled, place), case.reports)
            if right is not None:
                found.append(JudgedField(case.case_id, field.name, field.probability, right))
    return found


def _told_alone(schema: FieldSchema, filled: Filled, place: int) -> str:
    """Return what a text says beyond one without any value."""
    values: list[Any] = [field.value if n == place else None for n, field in enumerate(filled.fields)]
    empty = text_of(schema, [None] * len(values)).split("\n")
    return "\n".join(line for line in text_of(schema, values).split("\n") if line not in empty)
