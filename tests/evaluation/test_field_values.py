"""Values of fields are held against what a manifest says is true, or against reference reports."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsi_mivpg.cohorts.case import Case, read_manifest, write_manifest
from wsi_mivpg.cohorts.wording import FINDING_PHRASES, NEIGHBOUR_PHRASES, stated_fields, write_report
from wsi_mivpg.errors import CohortError
from wsi_mivpg.evaluation.field_values import READ_BY_RULES, statement_is_right, true_values, value_is_right
from wsi_mivpg.evaluation.fields import extract_fields
from wsi_mivpg.prompting import FilledField, load_schema, text_of, text_of_one
from wsi_mivpg.prompting.schema import SHIPPED

NAMES = ("grade", "size_mm", "extent_percent", "invasion", "tumour.type")


@pytest.mark.parametrize(
    ("name", "value", "true", "right"),
    [
        ("extent_percent", 30, 40, True),
        ("extent_percent", 29, 40, False),
        ("size_mm", 21, 20, True),
        ("size_mm", 25, 20, False),
        ("area_mm2", 105.0, 100, True),
        ("foci", 2, 2.0, True),
        ("foci", 2, 3, False),
        ("invasion", True, True, True),
        ("invasion", True, False, False),
        ("invasion", True, 1, False),
        ("type", "Squamous  cell carcinoma", "squamous cell carcinoma", True),
        ("type", "squamous cell carcinoma", "adenocarcinoma", False),
        ("type", "adenocarcinoma", None, False),
        ("nodes", ["N2", "n1"], ["n1", "n2"], True),
        ("nodes", ["n1"], ["n1", "n2"], False),
    ],
)
def test_values_are_right_by_the_rules_that_reports_are_held_to(name: str, value: Any, true: Any, right: bool) -> None:
    assert value_is_right(name, value, true) is right


def test_true_values_come_from_the_truth_or_from_columns_of_the_fields_names(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(
        "case_id,report,grade,size_mm,invasion,tumour.type,scanner\na,x,2,12.5,true,Squamous,Aperio\nb,x,,null,,,\n"
    )
    first, second = read_manifest(tmp_path / "cases.csv")
    assert true_values(first, NAMES) == {"grade": 2, "size_mm": 12.5, "invasion": True, "tumour.type": "Squamous"}
    assert true_values(second, NAMES) == {"size_mm": None}
    write_manifest(
        tmp_path / "cases.jsonl", [Case("c", (), (), ("x",), "val", truth={"fields": {"grade": 3, "other": 1}})]
    )
    assert true_values(read_manifest(tmp_path / "cases.jsonl")[0], NAMES) == {"grade": 3}
    with pytest.raises(CohortError, match=r"case 'd'.*is 3; give an object"):
        true_values(Case("d", (), (), (), "val", truth={"fields": 3}), NAMES)


def test_without_true_values_a_statement_is_held_against_the_reports() -> None:
    reports = ("Lung, core biopsy: adenocarcinoma, involving approximately 20% of the tissue.",)
    assert statement_is_right("diagnosis", "Lung tissue with adenocarcinoma.", reports) is None  # organ and diagnosis
    assert statement_is_right("diagnosis", "Tissue: adenocarcinoma.", reports) is True
    assert statement_is_right("diagnosis", "Tissue: squamous cell carcinoma.", reports) is False
    assert statement_is_right("extent_percent", "It takes 25% of the tissue.", reports) is True
    assert statement_is_right("extent_percent", "It takes 60% of the tissue.", reports) is False
    assert statement_is_right("adjacent", "Adjacent to lung.", reports) is None  # that would be read as the organ
    assert statement_is_right("organ", "Lung.", ()) is None


@pytest.mark.parametrize("name", SHIPPED)
def test_values_of_shipped_schemas_alone_are_read_as_what_they_are(name: str) -> None:
    schema = load_schema(name)
    judged = set()
    for field in schema.fields:
        values = [value for value in field.values or ("melanoma", "invasive ductal carcinoma") if value is not None]
        said = [text_of_one(schema, FilledField(field.name, value, 1.0, (), True)) for value in values]
        wholes = [text_of(schema, [value if one is field else None for one in schema.fields]) for value in values]
        for place, statement in enumerate(said):
            own = statement_is_right(field.name, statement, [wholes[place]])
            assert own is not False, statement
            if own and len(values) > 1:
                other = (place + len(values) // 2) % len(values)
                assert statement_is_right(field.name, statement, [wholes[other]]) is False, (statement, wholes[other])
            if own:
                judged.add(field.name)
    # Neighbours would be read as organs, classes are not compared, and stages are nothing that the rules know.
    expected = {field.name for field in schema.fields if field.name.partition(".")[0] in READ_BY_RULES}
    assert judged == expected - {"margins.closest_mm", "tumour_size_mm"}


def test_the_truth_of_virtual_slides_states_what_the_shipped_schema_asks_and_what_the_reports_say() -> None:
    schema = load_schema("virtual-biopsy")
    allowed = {field.name: field.values or () for field in schema.fields}
    rng = np.random.default_rng(0)
    for finding in FINDING_PHRASES:
        for touches in ([], ["stroma"], ["stroma", "parenchyma"], ["lymphoid", "necrosis"]):
            truth = {
                "organ": "Lung",
                "procedure": "core biopsy",
                "finding": finding,
                "extent_percent": float(rng.uniform(3, 90)),
                "n_foci": int(rng.integers(1, 4)),
                "touches": touches,
                "shares": dict.fromkeys(NEIGHBOUR_PHRASES, 0.25),
            }
            fields = stated_fields(truth)
            assert list(fields) == list(allowed)
            assert all(fields[name] in allowed[name] for name in fields)
            said = extract_fields(write_report(truth, rng))
            assert (said.finding, said.extent_percent, said.foci) == (
                finding,
                fields["extent_percent"],
                fields["foci"],
            )
