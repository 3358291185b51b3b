"""FHIR: the resource is valid R4, comes back as it was, and keeps the rules that a schema cannot say."""

import base64
import hashlib
import json
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fhir.resources.R4B.diagnosticreport import DiagnosticReport

from tests.reports.forms.whole import SURE, UIDS, whole_report
from wsi_mivpg.errors import TextsError
from wsi_mivpg.reports import NOT_ASSESSABLE
from wsi_mivpg.reports.forms import plain_text, write_fhir


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fhir") / "report.json"
    write_fhir(path, whole_report())
    return path


@pytest.fixture(scope="module")
def resource(path: Path) -> dict:
    return json.loads(path.read_text())


def test_it_is_read_back_as_it_was_written(path, resource):
    read = DiagnosticReport.model_validate_json(path.read_bytes())
    assert json.loads(read.model_dump_json()) == resource


def test_it_is_preliminary_and_labelled_as_asserted_by_an_artificial_intelligence(resource):
    assert resource["status"] == "preliminary"
    assert [label["code"] for label in resource["meta"]["security"]] == ["AIAST"]
    flags = {one["url"].rpartition(":")[2]: one for one in resource["extension"]}
    assert flags["ai-generated"]["valueBoolean"] is True
    assert flags["verified-by-a-pathologist"]["valueBoolean"] is False
    assert "NOT SUPPORTED" in flags["not-supported"]["valueString"]


def test_no_patient_is_invented(resource):
    assert "subject" not in resource
    assert all("subject" not in one and one["resourceType"] != "Patient" for one in resource["contained"])


def test_what_is_contained_follows_the_rules_of_contained_resources(resource):
    """R4's dom-2 to dom-5: nothing nested, each referenced or referring, no versions, no security labels."""
    references = {f"#{one}" for one in (item["id"] for item in resource["contained"])}
    told = json.dumps({**resource, "contained": []}) + json.dumps(
        [one for one in resource["contained"] if one["resourceType"] != "Provenance"]
    )
    for one in resource["contained"]:
        assert "contained" not in one
        assert "meta" not in one
        assert f'"#{one["id"]}"' in told or {"reference": "#"} in one["target"]
    for entry in (*resource["specimen"], *resource["result"]):
        assert entry["reference"] in references


def test_the_model_is_the_author_and_the_device_of_every_field(resource):
    by_type = {one["resourceType"]: one for one in resource["contained"]}
    assert by_type["Device"]["deviceName"] == [{"name": "demo", "type": "model-name"}]
    assert by_type["Provenance"]["agent"][0]["who"] == {"reference": f"#{by_type['Device']['id']}"}
    assert resource["issued"] == by_type["Provenance"]["recorded"] == "2026-11-23T10:00:00Z"
    assert "performer" not in resource  # R4 knows people and organisations there, and none of them did it


def test_fields_come_back_with_value_and_probability(resource):
    fields = {one["code"]["text"]: one for one in resource["contained"] if one["resourceType"] == "Observation"}
    assert fields["organ"]["valueString"] == "lung"
    assert Decimal(str(fields["organ"]["extension"][0]["valueDecimal"])) == Decimal("0.9")
    assert fields["grade"]["valueQuantity"] == {"value": 2}
    sure = {one["url"].rpartition(":")[2]: one["valueDecimal"] for one in fields["grade"]["extension"]}
    assert sure == {"probability": 0.75, "confidence": 0.625}
    assert fields["invasion"]["valueBoolean"] is True
    for name in ("margins", "stage"):
        assert fields[name]["dataAbsentReason"]["text"] == "Not assessable with confidence"
        assert not [key for key in fields[name] if key.startswith("value")]
    assert all(one["status"] == "preliminary" for one in fields.values())


def test_forms_and_conclusion_hold_what_may_be_shown(resource):
    assert resource["conclusion"].split("\n")[-2:] == [SURE, NOT_ASSESSABLE]
    text, page = (base64.b64decode(form["data"]) for form in resource["presentedForm"])
    assert text.decode() == plain_text(whole_report())
    assert SURE in "".join(ElementTree.fromstring(page.decode().replace("<!DOCTYPE html>", "")).itertext())
    for form, data in zip(resource["presentedForm"], (text, page), strict=True):
        assert form["size"] == len(data)
        assert base64.b64decode(form["hash"]) == hashlib.sha1(data).digest()
    narrative = ElementTree.fromstring(resource["text"]["div"])
    assert narrative.tag == "{http://www.w3.org/1999/xhtml}div"


def test_dicom_slides_are_referenced_by_their_uids(resource):
    assert resource["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{UIDS.study_uid}"
    first, second = (one for one in resource["contained"] if one["resourceType"] == "Specimen")
    assert first["identifier"][1] == {"system": "urn:dicom:uid", "value": f"urn:oid:{UIDS.instance_uid}"}
    assert len(second["identifier"]) == 1


def test_odd_text_and_numbers_are_no_obstacle(tmp_path):
    odd = whole_report(
        text="\x00",
        sentences=(),
        consensus=None,
        warnings=("", "\x07"),
        fields=({"name": "", "value": "", "probability": float("nan")},),
        gates=({"name": "g", "value": float("-inf"), "threshold": None, "passed": None, "explanation": ""},),
    )
    write_fhir(tmp_path / "a.json", odd)
    read = DiagnosticReport.model_validate_json((tmp_path / "a.json").read_bytes())
    assert "The model wrote no text." in read.conclusion


def test_a_report_without_a_time_is_refused_by_name(tmp_path):
    with pytest.raises(TextsError, match="is not the time at which it was written"):
        write_fhir(tmp_path / "a.json", whole_report(provenance={"created": ""}))
