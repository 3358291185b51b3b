"""The published JSON Schema: up to date, sound, and in agreement with what Report accepts."""

import json
from pathlib import Path

import jsonschema
import pytest

from tests.reports.forms.whole import whole_report
from wsi_mivpg.errors import TextsError
from wsi_mivpg.reports.report import parse_report
from wsi_mivpg.reports.schema import report_schema

PUBLISHED = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))


def test_the_published_schema_is_sound_and_up_to_date():
    published = json.loads(PUBLISHED.read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    assert published == report_schema(), "run: python -m wsi_mivpg.reports.schema > docs/report.schema.json"


def test_a_whole_report_and_a_bare_one_are_valid(validator):
    for report in (whole_report(), whole_report(slides=(), sentences=(), fields=(), gates=(), top_tiles=())):
        validator.validate(json.loads(report.model_dump_json()))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("surprise",), 1),
        (("case_id",), None),
        (("schema_version",), "wsi-mivpg-report/2"),
        (("gates", 0, "value"), "high"),
        (("sentences", 0, "top_tiles", 0, "x"), 0.5),
        (("slides", 0, "dicom", "study_uid"), "not a uid"),
        (("sentences", 0, "unverified_numbers"), [[1]]),
    ],
)
def test_schema_and_report_refuse_the_same(validator, place, value):
    data = json.loads(whole_report().model_dump_json())
    target = data
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    assert not validator.is_valid(data)
    with pytest.raises(TextsError, match="is not a report"):
        parse_report(json.dumps(data), "here")
