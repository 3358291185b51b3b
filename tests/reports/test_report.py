import json
from pathlib import Path

import pytest

from wsi_mivpg.errors import TextsError
from wsi_mivpg.reports import Provenance, Report, SlideSummary, TopTile, read_jsonl, write_jsonl


def report(**changes: object) -> Report:
    fields: dict[str, object] = {
        "case_id": "case-1",
        "text": "Lung, core biopsy: necrosis.",
        "provenance": Provenance(created="2026-11-23T10:00:00Z", versions={"torch": "2.14"}),
        "model": {"name": "demo", "demonstration": True},
        "slides": (SlideSummary(slide_id="a", n_tiles=3, mpp=0.25),),
        "top_tiles": (TopTile(slide_id="a", x=0, y=448, size_l0_px=444.1, weight=0.5),),
        "warnings": ("short\u2028 text",),
        "mean_logprob": -0.25,
    }
    return Report.model_validate({**fields, **changes})


def test_reports_come_back_from_json_lines_as_they_were(tmp_path: Path):
    written = [report(), report(case_id="zwei", text="")]
    write_jsonl(tmp_path / "reports.jsonl", written)
    assert read_jsonl(tmp_path / "reports.jsonl") == read_jsonl(f"{tmp_path}/reports.jsonl") == written
    assert not list(tmp_path.glob(".*"))


def test_a_line_that_is_not_a_report_is_named(tmp_path: Path):
    path = tmp_path / "reports.jsonl"
    path.write_text(report().model_dump_json() + '\n{"case_id": "x"}\n')
    with pytest.raises(TextsError, match=r"reports\.jsonl, line 2 is not a report: text"):
        read_jsonl(path)


@pytest.mark.parametrize("places", [[(0, 5, "Lung,"), (4, 6, ", ")], [(0, 4, "Lung"), (90, 95, "")], [(0, 4, "Liver")]])
def test_sentences_that_are_not_of_the_text_are_named(tmp_path: Path, places: list[tuple[int, int, str]]):
    line = json.loads(report().model_dump_json())
    line["sentences"] = [
        {"text": text, "start": start, "end": end, "logprob": -1, "method": "attention"} for start, end, text in places
    ]
    (tmp_path / "reports.jsonl").write_text(json.dumps(line))
    with pytest.raises(TextsError, match=rf"sentence {len(places)} is not characters"):
        read_jsonl(tmp_path / "reports.jsonl")


def test_a_missing_file_is_a_clear_error(tmp_path: Path):
    with pytest.raises(TextsError, match=r"none\.jsonl"):
        read_jsonl(tmp_path / "none.jsonl")


def test_every_report_says_that_it_is_no_medical_device():
    assert "not a medical device" in report().disclaimer
    assert "no pathologist has checked" in report().disclaimer


def test_a_report_is_printed_as_its_text_without_the_places_of_files():
    found = report(
        case_id="one", text="Normal lung.", slides=[{"slide_id": "a", "n_tiles": 3, "path": "/home/me/a.svs"}]
    )
    assert repr(found) == "Report(one: Normal lung.)"
