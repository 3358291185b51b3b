"""What every form must say, and must not say, whichever it is."""

import base64
import json
from pathlib import Path

import pydicom
import pytest

from tests.reports.forms.whole import SURE, UNSURE, whole_report
from wsi_mivpg.reports import NOT_ASSESSABLE, read_json
from wsi_mivpg.reports.forms import FORMS, write_form


def told(path: Path) -> str:
    """Return all text of a file, whatever its form packs it in."""
    if path.suffix == ".dcm":
        return "\n".join(str(element.value) for element in pydicom.dcmread(path).iterall() if element.VR != "SQ")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json" and "presentedForm" in (found := json.loads(text)):
        forms = [base64.b64decode(form.pop("data")).decode() for form in found["presentedForm"]]
        return "\n".join([json.dumps(found, ensure_ascii=False), *forms])
    return text


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("forms")
    return {form: write_form(form, folder, whole_report()) for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_who_wrote_it_when_from_what_and_that_nobody_verified_it(form, written):
    assert written[form]
    for path in written[form]:
        text = told(path)
        for needed in ("S-77/2026", "S-77 A", "demo", "2026-11-23", "no pathologist has checked it", SURE):
            assert needed in text, f"{needed} is not in {path.name}"


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("json", "html")])
def test_every_form_but_json_hides_what_is_not_assessable_and_says_that_the_slides_do_not_support_it(form, written):
    for path in written[form]:
        text = told(path)
        assert UNSURE not in text
        assert NOT_ASSESSABLE in text.replace("\\[", "[").replace("\\]", "]")
        assert "free margins" not in text
        assert "not verified by a pathologist" in text
        assert "image dependence: SHUT (0.125, at least 0.3 is asked)" in text
        assert "only 30 tiles of tissue were found" in text


def test_the_page_shows_what_is_not_assessable_only_as_such(written):
    (path,) = written["html"]
    assert NOT_ASSESSABLE in path.read_text()
    assert "Not supported by these slides" in path.read_text()


def test_json_keeps_everything(written):
    (path,) = written["json"]
    assert read_json(path) == whole_report()


def test_files_are_named_by_the_case_and_lie_in_the_folder_of_their_form(written):
    names = {form: [str(path.relative_to(path.parents[1])) for path in paths] for form, paths in written.items()}
    stem = Path(names["text"][0]).stem
    assert stem.startswith("S-77-2026-")
    assert names["fhir"] == [f"fhir/{stem}.json"]
    assert names["dicom-sr"] == [f"dicom-sr/{stem}.dcm"]
    assert len(names["geojson"]) == 2
    assert {path.parent.name for path in written["geojson"]} == {stem}


@pytest.mark.parametrize("form", FORMS)
def test_a_report_that_says_next_to_nothing_can_be_written_in_every_form(form, tmp_path):
    bare = whole_report(
        text="", sentences=(), fields=(), gates=(), slides=(), top_tiles=(), consensus=None, model={}, warnings=()
    )
    for path in write_form(form, tmp_path, bare):
        assert path.stat().st_size > 0
