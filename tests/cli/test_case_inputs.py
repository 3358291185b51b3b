"""What a user names becomes cases: of slides, of bags, of both, with what is still to be extracted."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.provenance import PROVENANCE, bag_on_disk
from wsi_mivpg.cli.case_inputs import CaseInput, CaseSlide, find_cases
from wsi_mivpg.errors import CohortError, SlideError
from wsi_mivpg.extraction import SlideInput


def bag(path: Path, case_id: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return bag_on_disk(path, replace(PROVENANCE, slide_id=path.stem, case_id=case_id)).path


def empty(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def cases_of(tmp_path: Path, *given: object, split: str | None = None) -> tuple[list[CaseInput], dict[str, str]]:
    cases, found = find_cases([str(one) for one in given], tmp_path / "out", split)
    return cases, found.failures


def test_slides_and_bags_are_cases_of_their_own_unless_they_name_one(tmp_path: Path):
    empty(tmp_path / "slides" / "lone.svs")
    (tmp_path / "list.csv").write_text(
        "slide_id,path,case_id\nx1,slides/a.svs,pair\nx2,slides/b.svs,pair\nx3,slides/c.svs,\n"
    )
    bag(tmp_path / "bags" / "p.h5", "of two")
    bag(tmp_path / "bags" / "q.h5", "of two")
    bag(tmp_path / "bags" / "r.h5")
    cases, failures = cases_of(tmp_path, tmp_path / "slides", tmp_path / "list.csv", tmp_path / "bags")
    assert {case.case_id: [one.bag.name for one in case.slides] for case in cases} == {
        "of two": ["p.h5", "q.h5"],
        "r": ["r.h5"],
        "lone": ["lone.h5"],
        "pair": ["x1.h5", "x2.h5"],
        "x3": ["x3.h5"],
    }
    assert {case.case_id: len(case.missing) for case in cases} == {"of two": 0, "r": 0, "lone": 1, "pair": 2, "x3": 1}
    assert not failures


def test_a_manifests_bags_are_used_and_what_is_missing_is_to_be_made(tmp_path: Path):
    bag(tmp_path / "b" / "s1.h5")
    for name in ("s1", "s2", "s3"):
        empty(tmp_path / "s" / f"{name}.svs")
    (tmp_path / "cases.csv").write_text(
        "case_id,slide,bag,stain,split\nA,s/s1.svs,b/s1.h5,H&E,test\nA,s/s2.svs,,PAS,test\nB,s/s3.svs,b/gone.h5,,train\n"
    )
    cases, _ = cases_of(tmp_path, tmp_path / "cases.csv")
    slide = {
        name: SlideInput(name, tmp_path / "s" / f"{name}.svs", case)
        for name, case in zip(("s1", "s2", "s3"), "AAB", strict=True)
    }
    assert cases == [
        CaseInput(
            "A",
            (
                CaseSlide(tmp_path / "b" / "s1.h5", slide["s1"], False, "H&E"),
                CaseSlide(tmp_path / "out" / "s2.h5", slide["s2"], True, "PAS"),
            ),
        ),
        CaseInput("B", (CaseSlide(tmp_path / "out" / "s3.h5", slide["s3"], True, None),)),
    ]
    of_test, _ = cases_of(tmp_path, tmp_path / "cases.csv", split="test")
    assert [case.case_id for case in of_test] == ["A"]


def test_bags_of_other_names_are_their_slides_in_order_and_slides_that_are_gone_have_no_picture(tmp_path: Path):
    for name in ("f1", "f2"):
        bag(tmp_path / f"{name}.h5")
    empty(tmp_path / "one.svs")
    line = '{"case_id": "A", "slides": ["one.svs", "two.svs"], "bags": ["f1.h5", "f2.h5"], "stain": "H&E"}\n'
    (tmp_path / "cases.jsonl").write_text(line)
    ((case,), _) = cases_of(tmp_path, tmp_path / "cases.jsonl")
    assert [one.bag.name for one in case.slides] == ["f1.h5", "f2.h5"]
    assert [one.slide.slide_id if one.slide else None for one in case.slides] == ["one", None]
    assert [one.stain for one in case.slides] == ["H&E", "H&E"]
    assert not case.missing


def test_what_cannot_be_a_case_is_named_and_the_others_are_there(tmp_path: Path):
    bag(tmp_path / "a.h5")
    empty(tmp_path / "broken.h5")
    (tmp_path / "cases.jsonl").write_text(
        '{"case_id": "bare"}\n'
        '{"case_id": "unclear", "slides": ["x.svs", "y.svs", "z.svs"], "bags": ["f.h5"]}\n'
        '{"case_id": "stained", "slides": ["u.svs", "v.svs"], "stain": "H&E;PAS;IHC"}\n'
    )
    cases, failures = cases_of(tmp_path, tmp_path / "a.h5", tmp_path / "broken.h5", tmp_path / "cases.jsonl")
    assert [case.case_id for case in cases] == ["a"]
    assert failures.keys() == {str(tmp_path / "broken.h5"), "bare", "unclear", "stained"}
    assert "names neither a slide nor a bag" in failures["bare"]
    assert "f.h5" in failures["unclear"]
    assert "2 slides and 3 stains" in failures["stained"]
    _, failures = cases_of(tmp_path, tmp_path / "cases.jsonl", split="val")
    assert "no case of split 'val'" in failures[str(tmp_path / "cases.jsonl")]


def test_two_cases_or_two_slides_of_one_name_are_refused(tmp_path: Path):
    bag(tmp_path / "a.h5")
    (tmp_path / "cases.jsonl").write_text('{"case_id": "a", "bags": ["a.h5"]}\n')
    with pytest.raises(CohortError, match="two cases have the name 'a'"):
        cases_of(tmp_path, tmp_path / "a.h5", tmp_path / "cases.jsonl")
    (tmp_path / "twins.jsonl").write_text(
        '{"case_id": "A", "slides": ["x/1.svs"]}\n{"case_id": "B", "slides": ["y/1.svs"]}\n'
    )
    with pytest.raises(SlideError, match="the same name '1'"):
        cases_of(tmp_path, tmp_path / "twins.jsonl")
    (tmp_path / "shared.jsonl").write_text(
        '{"case_id": "A", "slides": ["x/1.svs"]}\n{"case_id": "B", "slides": ["x/1.svs"]}\n'
    )
    cases, _ = cases_of(tmp_path, tmp_path / "shared.jsonl")
    assert [case.missing[0].slide_id for case in cases] == ["1", "1"]
