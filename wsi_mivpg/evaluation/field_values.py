"""Whether a field of a structured report has the right value: against its true value, or against reference reports."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError
from wsi_mivpg.evaluation.clinical import is_right, read_report
from wsi_mivpg.evaluation.clinical.score import close

READ_BY_RULES: Mapping[str, frozenset[str]] = {
    "organ": frozenset({"organ"}),
    "procedure": frozenset({"procedure"}),
    "laterality": frozenset({"laterality"}),
    "diagnosis": frozenset({"histological_type", "diagnosis_class", "negation", "uncertainty"}),
    "grade": frozenset({"grade"}),
    "extent_percent": frozenset({"percentage"}),
    "foci": frozenset({"foci"}),
    "tumour_size_mm": frozenset({"size_mm"}),
    "invasion": frozenset({"invasion", "negation"}),
    "margins": frozenset({"margin", "margin_distance_mm", "negation"}),
    "necrosis": frozenset({"other_findings", "negation"}),
}
"""Field -> what its statement may be read as; a statement that is read as anything else is misunderstood."""
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


def statement_is_right(name: str, statement: str, references: Sequence[str]) -> bool | None:
    """Return whether what a text states of a field is right by reference reports; None where rules cannot tell.

    Args:
        name: of the field; rules know those whose outermost name is in `READ_BY_RULES`.
        statement: what a text says of its value alone.
        references: equally right wordings of the case's report.
    """
    known = READ_BY_RULES.get(name.partition(".")[0], frozenset())
    read = read_report(statement)
    kinds = read.statements.keys() | {number.partition(".")[0] for number in read.numbers}
    return is_right(statement, references) if references and kinds and kinds <= known else None


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
