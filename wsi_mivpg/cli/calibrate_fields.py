"""Fills schemas for calibration cases and holds each value against what is true of the case; `trust` fits on that."""

from collections.abc import Sequence

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.evaluation.field_values import statement_is_right, true_values, value_is_right
from wsi_mivpg.prompting import FieldSchema, fill, text_of_one
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
        for field in filled.fields:
            if field.value is None:
                continue
            if field.name in true:
                right: bool | None = value_is_right(field.name, field.value, true[field.name])
            else:
                right = statement_is_right(field.name, text_of_one(schema, field), case.reports)
            if right is not None:
                found.append(JudgedField(case.case_id, field.name, field.probability, right))
    return found
