"""Whether a field of a structured report has the right value: against its true value, or against reference reports."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError
from wsi_mivpg.evaluation.clinical import is_right, read_report
from wsi_mivpg.evaluation.clinical.score import close

_SIZES = ("_um", "_mm", "_cm", "_um2", "_mm2", "_cm2")


def true_values(case: Case, names: Sequence[str]) -> dict[str, Any]:
    """Return what a manifest says of fields: `truth.fields`, else columns that are called like them.

    A cell is read as JSON where it is some (`20`, `true`, `null`), else as text; an empty one says nothing.

    Args:
        case: of the manifest.
        names: of the fields, with dots between their groups.

    Raises:
        CohortError: `truth.fields` is no object.
    """
    stated = (case.truth or {}).get("fields", {})
    if not isinstance(stated, Mapping):
        raise CohortError(
            f'case {case.case_id!r}: "fields" of its truth is {stated!r}; give an object, as {{"grade": 2}}'
        )
    cells = {name: _parsed(text) for name, text in case.attributes.items() if text.strip()}
    return {name: found[name] for found in (cells, stated) for name in names if name in found}


def value_is_right(name: str, value: Any, true: Any) -> bool:
    """Return whether a value is the true one, by the rules that reports are held to.

    A number of a name that ends in `_percent` is right within 10 points, a size (`_um`, `_mm`, `_cm`, also squared)
    within a tenth, any other exactly; texts in whatever case and with whatever spaces; lists in any order.
    """
    if _is_number(value) and _is_number(true):
        kind = "percentage" if name.endswith("_percent") else "size_mm" if name.endswith(_SIZES) else "count"
        return close(kind, float(value), float(true))
    if isinstance(value, list) and isinstance(true, list):
        return sorted(map(_plain, value)) == sorted(map(_plain, true))
    return _plain(value) == _plain(true)


def statement_is_right(statement: str, references: Sequence[str]) -> bool | None:
    """Return whether what a text states is right by reference reports; None where it states nothing that rules know."""
    read = read_report(statement)
    if not references or not (read.statements or read.numbers):
        return None
    return is_right(statement, references)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return " ".join(text.casefold().split())


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()
