"""DICOM SR: what highdicom and pydicom read back is what the report says, and nothing about a patient."""

import shutil
import subprocess
from pathlib import Path

import highdicom
import pydicom
import pytest
from pydicom.sr.codedict import codes

from tests.reports.forms.whole import SURE, TILE, UIDS, UNSURE, whole_report
from wsi_mivpg.errors import TextsError
from wsi_mivpg.reports import NOT_ASSESSABLE, Report
from wsi_mivpg.reports.forms import write_dicom_sr
from wsi_mivpg.reports.forms.dicom_sr import WHOLE_SLIDE_IMAGE


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sr") / "report.dcm"
    write_dicom_sr(path, whole_report())
    return path


@pytest.fixture(scope="module")
def document(path: Path) -> highdicom.sr.ComprehensiveSR:
    return highdicom.sr.srread(path)


def without_dicom(report: Report) -> Report:
    slides = tuple(slide.model_copy(update={"dicom": None}) for slide in report.slides)
    return report.model_copy(update={"slides": slides})


def texts(group: object) -> list[str]:
    return [item.value for item in group[0].ContentSequence if isinstance(item, highdicom.sr.TextContentItem)]


def test_it_is_a_complete_preliminary_unverified_measurement_report(document):
    assert isinstance(document, highdicom.sr.ComprehensiveSR)
    assert isinstance(document.content, highdicom.sr.MeasurementReport)
    assert document.CompletionFlag == "COMPLETE"
    assert document.PreliminaryFlag == "PRELIMINARY"
    assert document.VerificationFlag == "UNVERIFIED"
    assert (document.ContentDate, document.ContentTime) == ("20261123", "100000")  # it was written at 11 h, UTC + 1
    (observer,) = document.content.get_observer_contexts()
    assert observer.observer_type == codes.DCM.Device
    assert observer.observer_identifying_attributes.model_name == "demo"


def test_nothing_is_said_of_a_patient(document):
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate"):
        assert keyword in document  # they must be there (type 2) ...
        assert not document[keyword].value  # ... and may be empty


def test_it_belongs_to_the_slides_study_and_references_its_image(document):
    assert document.StudyInstanceUID == UIDS.study_uid
    assert document.SeriesInstanceUID != UIDS.series_uid
    evidence = (UIDS.study_uid, UIDS.series_uid, UIDS.instance_uid, WHOLE_SLIDE_IMAGE)
    assert [tuple(map(str, one)) for one in document.get_evidence()] == [evidence]


def test_tiles_of_a_dicom_slide_are_regions_of_its_image(document):
    groups = document.content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [
        "Report: tile 1, by gradient",
        "Sentence 1: tile 1, by gradient",
    ]  # the tiles of slide B, which is not DICOM, have no image to lie on
    region = groups[0].roi
    assert region.value.min(axis=0).tolist() == [TILE.x, TILE.y]
    assert region.value.max(axis=0).tolist() == [TILE.x + TILE.size_l0_px, TILE.y + TILE.size_l0_px]
    source = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == UIDS.instance_uid
    (weight,) = groups[0].get_measurements()
    assert weight.value == TILE.weight


def test_fields_sentences_and_gates_come_back_with_their_numbers(document):
    groups = {group.tracking_identifier: group for group in document.content.get_image_measurement_groups()}
    read = {name: ([one.value for one in group.get_measurements()], texts(group)) for name, group in groups.items()}
    assert read["Field 1: organ"][0] == [90]
    assert "lung" in read["Field 1: organ"][1]
    assert read["Field 2: grade"][0] == [62.5]  # calibrated, where it was
    assert NOT_ASSESSABLE in read["Field 4: margins"][1]
    assert read["Sentence 1"][0] == [80]
    assert SURE in read["Sentence 1"][1]
    assert NOT_ASSESSABLE in read["Sentence 2"][1]
    assert UNSURE not in read["Sentence 2"][1]
    assert read["Trust gate: image dependence"][0] == [0.125]
    assert any("SHUT" in text for text in read["Trust gate: image dependence"][1])


def test_the_conclusion_is_the_text_that_may_be_shown(document):
    conclusion = next(one for one in document.content[0].ContentSequence if one.name == codes.DCM.Conclusion)
    assert conclusion.value.split("\r\n")[-2:] == [SURE, NOT_ASSESSABLE]


def test_slides_that_are_not_dicom_are_named_and_no_image_is_made_up(tmp_path):
    report = without_dicom(whole_report())
    write_dicom_sr(tmp_path / "a.dcm", report)
    read = highdicom.sr.srread(tmp_path / "a.dcm")
    assert read.get_evidence() == []
    assert not read.content.get_planar_roi_measurement_groups()
    assert not [element for element in read.iterall() if element.keyword == "ReferencedSOPInstanceUID"]
    assert pydicom.uid.UID(read.StudyInstanceUID).is_valid
    assert any("S-77 B: 8 tiles" in str(element.value) for element in read.iterall() if element.VR == "UT")
    later = report.model_copy(update={"text": report.text.replace("\n", " "), "warnings": ()})
    write_dicom_sr(tmp_path / "b.dcm", later)
    other = pydicom.dcmread(tmp_path / "b.dcm")
    assert other.StudyInstanceUID == read.StudyInstanceUID  # reports of one case lie together
    assert other.SOPInstanceUID != read.SOPInstanceUID


def test_the_same_report_gives_the_same_bytes(path, tmp_path):
    write_dicom_sr(tmp_path / "again.dcm", whole_report())
    assert (tmp_path / "again.dcm").read_bytes() == path.read_bytes()


def test_a_report_without_a_time_is_refused_by_name(tmp_path):
    report = whole_report(provenance={"created": "yesterday"})
    with pytest.raises(TextsError, match="S-77/2026: 'yesterday' is not the time"):
        write_dicom_sr(tmp_path / "a.dcm", report)
    assert not list(tmp_path.iterdir())


def test_odd_text_and_numbers_are_no_obstacle(tmp_path):
    odd = whole_report(
        text="\x1b[1m µ → 🩺\nzwei " + "lang " * 4000,
        sentences=(),
        consensus=None,
        model={"name": "n" * 300},
        gates=({"name": "g" * 90, "value": float("inf"), "threshold": 1, "passed": True, "explanation": ""},),
        fields=({"name": "f" * 90, "value": 1e-300, "probability": 1 / 3},),
    )
    write_dicom_sr(tmp_path / "a.dcm", odd)
    read = highdicom.sr.srread(tmp_path / "a.dcm")
    conclusion = next(one for one in read.content[0].ContentSequence if one.name == codes.DCM.Conclusion)
    assert "[1m µ → 🩺\r\nzwei lang" in conclusion.value


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (apt: dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(path, tmp_path):
    write_dicom_sr(tmp_path / "other.dcm", without_dicom(whole_report()))
    for one in (path, tmp_path / "other.dcm"):
        said = subprocess.run(["dciodvfy", one], capture_output=True, text=True, check=False)
        assert "ComprehensiveSR" in said.stderr
        assert "Error" not in said.stderr
