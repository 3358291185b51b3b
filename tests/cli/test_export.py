"""`wsi-mivpg export`: what a folder of reports becomes, what fails, and that pseudonyms leave no trace of an id."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import highdicom
import pytest

from tests.provenance import PROVENANCE, bag_on_disk
from tests.reports.forms.whole import whole_report
from wsi_mivpg.reports import Report, SlideSummary, file_name, write_json, write_jsonl
from wsi_mivpg.reports.forms import FORMS


def named(case_id: str, **changes: object) -> Report:
    return whole_report(case_id=case_id, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return what `report` writes: three cases listed, and the JSON of one of them, brought up to date since."""
    folder = tmp_path / "report"
    write_jsonl(folder / "reports.jsonl", [named("one"), named("two"), named("three")])
    write_json(folder / "two.json", named("two", warnings=("explained",)))
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n")
    return path


def failures(out: Path) -> dict[str, str]:
    with (out / "failures.csv").open(newline="") as stream:
        return {row["slide"]: row["error"] for row in csv.DictReader(stream)}


def test_a_folder_of_reports_becomes_files_of_every_form(run, folder, tmp_path):
    code, out, _ = run("export", folder, "--to", "all", "--out", tmp_path / "out", "--json")
    assert code == 0
    done = json.loads(out)["cases"]
    assert [one["case_id"] for one in done] == ["one", "two", "three"]
    for one in done:
        assert {Path(path).relative_to(tmp_path / "out").parts[0] for path in one["files"]} == set(FORMS)
        assert all(Path(path).stat().st_size for path in one["files"])
    assert "explained" in (tmp_path / "out" / "text" / "two.txt").read_text()  # from two.json, not from the line
    assert not (tmp_path / "out" / "failures.csv").exists()


def test_a_bad_record_is_named_and_the_rest_is_exported(run, folder, tmp_path):
    listed = folder / "reports.jsonl"
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join([lines[0], '{"case_id": "torn', lines[2], lines[0]]) + "\n")
    code, out, err = run("export", listed, tmp_path / "none.json", "--to", "text", "--to", "text", "--out", tmp_path)
    assert code == 3
    assert out.split() == [str(tmp_path / "text" / name) for name in ("one.txt", "three.txt")]
    found = failures(tmp_path)
    assert f"{listed}, line 2" in found
    assert f"case one again, after {listed}, line 1" in found[f"{listed}, line 4, text"]
    assert "cannot read a report" in found[str(tmp_path / "none.json")]
    assert err.count("error: ") == 3


def test_a_form_that_cannot_be_written_does_not_stop_the_others(run, tmp_path):
    write_json(tmp_path / "a.json", named("a", provenance={"created": "long ago"}))
    code, out, _ = run("export", tmp_path / "a.json", "--to", "fhir", "--to", "text", "--out", tmp_path / "out")
    assert code == 3
    assert out.split() == [str(tmp_path / "out" / "text" / "a.txt")]
    assert "'long ago' is not the time" in failures(tmp_path / "out")[f"{tmp_path / 'a.json'}, fhir"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere", "--to", "text"], 1, "cannot read"),
        (["", "--to", "text"], 1, "neither reports.jsonl nor"),
        (["", "--to", "pdf"], 2, "'pdf' is not one of"),
        (["", "--to", "text", "--pseudonymise", "nokey"], 1, "openssl rand"),
    ],
)
def test_wrong_input_gives_one_clear_line(run, tmp_path, arguments, code, said):
    given = [tmp_path / arguments[0], *arguments[1:]]
    assert run("export", *given, "--out", tmp_path / "out")[0] == code
    assert said in " ".join(run("export", *given, "--out", tmp_path / "out")[2].split())


def test_under_pseudonyms_no_output_holds_an_id_a_place_or_a_uid(run, tmp_path, key):
    folder = tmp_path / "Doe Jane"
    report = named("S-77/2026", slides=[*whole_report().slides, SlideSummary(slide_id="77C", n_tiles=1)])
    write_jsonl(folder / "reports.jsonl", [report, named("S-78/2026", provenance={"created": "S-78/2026"})])
    with (folder / "reports.jsonl").open("a") as stream:
        stream.write('{"case_id": "S-79/2026"}\n')
    shared = tmp_path / "shared"
    code, out, _ = run("export", folder, "--to", "all", "--out", shared, "--pseudonymise", key, "--json")
    assert code == 3
    stems = [file_name(one.replace("/", "-")) for one in ("S-77/2026", "S-78/2026")]
    secrets = ["S-77", "S-78", "S-79", "77C", "Doe Jane", "1.2.3.4", "S_77", *stems]
    everything = {str(path.relative_to(shared)): path.read_bytes() for path in shared.rglob("*") if path.is_file()}
    assert {name.split("/")[0] for name in everything} == {*FORMS, "failures.csv"}
    for name, content in {**everything, "stdout": out.encode()}.items():
        for secret in secrets:
            assert secret.lower() not in name.lower()
            assert secret.lower().encode() not in content.lower(), (name, secret)
    assert failures(shared).keys() >= {"input 1, report 3", "input 1, report 2, fhir"}


def test_pseudonyms_are_the_same_in_another_run(run, folder, tmp_path, key):
    names = []
    for out in (tmp_path / "first", tmp_path / "second"):
        assert run("export", folder, "--to", "text", "--out", out, "--pseudonymise", key)[0] == 0
        names.append(sorted(path.name for path in (out / "text").iterdir()))
    assert names[0] == names[1]
    assert len(names[0]) == 3


def test_uids_of_dicom_slides_come_from_their_bags(run, tmp_path):
    uids = {"dicom_study_uid": "1.9.1", "dicom_series_uid": "1.9.2", "dicom_instance_uid": "1.9.3"}
    bag = bag_on_disk(tmp_path / "bags" / "s1.h5", replace(PROVENANCE, **uids))
    slide = SlideSummary(slide_id="s1", n_tiles=len(bag), bag="bags/s1.h5")
    write_json(tmp_path / "a.json", named("a", slides=[slide], top_tiles=(), sentences=()))
    assert run("export", tmp_path / "a.json", "--to", "dicom-sr", "--out", tmp_path / "out")[0] == 0
    read = highdicom.sr.srread(tmp_path / "out" / "dicom-sr" / "a.dcm")
    assert [str(uid) for uid in read.get_evidence()[0][:3]] == ["1.9.1", "1.9.2", "1.9.3"]
