"""Reports are read from every form in which tools write them, and bad files say what is wrong with them."""

import json
from pathlib import Path

import pytest

from wsi_mivpg.cohorts.case import Case, write_manifest
from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.joining import join
from wsi_mivpg.evaluation.readers import gather, load_predictions, load_references, load_texts, load_truths, truths_of
from wsi_mivpg.evaluation.text_files import MAX_CHARACTERS
from wsi_mivpg.reports.report import Provenance, Report, write_jsonl


def test_our_own_reports_file_is_read(tmp_path: Path):
    path = tmp_path / "reports.jsonl"
    made = Provenance(created="2026-01-01T00:00:00Z")
    write_jsonl(
        path, [Report(case_id="a", text="Lung: x.", provenance=made), Report(case_id="b", text="", provenance=made)]
    )
    assert load_predictions(path) == {"a": "Lung: x.", "b": ""}


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        (
            "a.jsonl",
            '{"case_id": "a", "text": "x"}\n\n{"id": "b", "reports": ["y", "z"]}\n',
            {"a": ["x"], "b": ["y", "z"]},
        ),
        ("a.csv", '\ufeffcase_id,report\na,"x, with comma"\na,second\n', {"a": ["x, with comma", "second"]}),
        ("a.csv", 'ID,Subtype,Text\n7,well,"two\nlines"\n', {"7": ["two\nlines"]}),
        ("a.json", '[{"id": "PIT_01.tiff", "report": "Breast;\\n  x"}]', {"PIT_01.tiff": ["Breast;\n  x"]}),
        ("a.json", '{"a": "x", "b": ["y", "z"]}', {"a": ["x"], "b": ["y", "z"]}),
        ("a.json", '[{"image_id": 3, "caption": "x"}]', {"3": ["x"]}),
        (
            "a.json",
            '{"images": [], "annotations": [{"image_id": 3, "caption": "x"}, {"image_id": 3, "caption": "y"}]}',
            {"3": ["x", "y"]},
        ),
        ("a.csv", 'case_id;report\na;x, y\nb;"y; z"\n', {"a": ["x, y"], "b": ["y; z"]}),
        ("a.csv", "id\ttext\r\na\tx, y\r\n", {"a": ["x, y"]}),
        ("a.csv", "id,text\na,x\x0cy\u2028z\n", {"a": ["x\x0cy\u2028z"]}),
        ("gts.csv", '"the tumor , is"\nno tumor\n', {"0": ["the tumor , is"], "1": ["no tumor"]}),
        ("res.csv", "no; tumor\n\nbenign\n\n", {"0": ["no; tumor"], "1": [""], "2": ["benign"]}),
        ("res.json", '["x", "y"]', {"0": ["x"], "1": ["y"]}),
    ],
    ids=[
        "jsonl",
        "csv",
        "csv-lines",
        "reg2025",
        "coco",
        "coco-results",
        "coco-annotations",
        "semicolons",
        "tabs",
        "odd-breaks",
        "r2gen",
        "r2gen-empty",
        "list",
    ],
)
def test_each_form_gives_its_ids_and_texts(tmp_path: Path, name: str, content: str, texts: dict[str, list[str]]):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert load_texts(tmp_path / name) == texts
    assert load_references(tmp_path / name) == texts


def test_a_csv_manifest_of_this_package_brings_reports_truth_and_the_bags_of_all_its_slides(tmp_path: Path):
    cases = [
        Case("a", (), (tmp_path / "a1.h5", tmp_path / "a2.h5"), ("x", "y"), "test", {"finding": "benign"}, "p"),
        Case("b", (), (), ("[no list",), "test", {"finding": "necrosis"}),
    ]
    write_manifest(tmp_path / "m.csv", cases)
    found = gather(tmp_path / "m.csv", "test")
    assert found.texts == {"a": ("x", "y"), "b": ("[no list",)}
    assert found.bags["a"] == (tmp_path / "a1.h5", tmp_path / "a2.h5")
    assert truths_of(found) == {"a": {"finding": "benign"}, "b": {"finding": "necrosis"}}
    (tmp_path / "rows.csv").write_text("case_id,bag,report\na,a1.h5,x\na,a2.h5,x\n")
    assert gather(tmp_path / "rows.csv").bags["a"] == (tmp_path / "a1.h5", tmp_path / "a2.h5")


def test_a_parquet_manifest_brings_what_the_same_csv_does(tmp_path: Path):
    pytest.importorskip("pyarrow")
    cases = [
        Case("a", (), (tmp_path / "a1.h5",), ("x", "y"), "test", {"finding": "benign"}, "p", attributes={"grade": "2"}),
        Case("b", (), (), ("z",), "train", {"finding": "necrosis"}, "q"),
    ]
    for name in ("m.parquet", "m.csv"):
        write_manifest(tmp_path / name, cases)
    found, expected = gather(tmp_path / "m.parquet"), gather(tmp_path / "m.csv")
    assert (found.texts, found.bags) == (expected.texts, expected.bags)
    assert truths_of(found) == truths_of(expected) == load_truths(tmp_path / "m.parquet")
    assert found.entries["a"].patient_id == "p"
    assert found.entries["a"].record["grade"] == "2"
    assert list(gather(tmp_path / "m.parquet", "train").texts) == ["b"]


def test_a_damaged_or_missing_parquet_file_is_named(tmp_path: Path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(TextsError, match=r"a\.parquet: not a Parquet file"):
        gather(tmp_path / "a.parquet")
    with pytest.raises(TextsError, match=r"none\.parquet does not exist"):
        gather(tmp_path / "none.parquet")


def test_many_paths_in_one_cell_of_a_manifest_are_no_hindrance(tmp_path: Path):
    (tmp_path / "m.csv").write_text(f"case_id,bags,report\na,{';'.join(f'bags/{n:09}.h5' for n in range(20_000))},x\n")
    assert gather(tmp_path / "m.csv").texts == {"a": ("x",)}


def test_r2gens_two_files_meet_by_position_and_say_so(tmp_path: Path):
    (tmp_path / "res.csv").write_text("a tumor\nnothing\n")
    (tmp_path / "gts.csv").write_text("the tumor\nno tumor\n")
    pairs, report = join(gather(tmp_path / "res.csv"), gather(tmp_path / "gts.csv"))
    assert pairs.predictions == ("a tumor", "nothing")
    assert pairs.references == (("the tumor",), ("no tumor",))
    assert any("position" in line for line in report.lines())


def test_the_same_text_twice_counts_once_and_is_reported(tmp_path: Path):
    (tmp_path / "a.csv").write_text("id,text\na,x\na,x\nb,y\n")
    found = gather(tmp_path / "a.csv")
    assert (found.texts, found.doubled) == ({"a": ("x",), "b": ("y",)}, ("a",))


def test_patients_splits_and_truths_come_along(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    lines = [
        {"case_id": "a", "patient_id": "p", "split": "test", "reports": ["x"], "truth": {"finding": "benign"}},
        {"case_id": "b", "split": "train", "reports": ["y"], "truth": None},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert gather(path, "test").entries["a"].patient_id == "p"
    assert gather(path, "train").entries["b"].patient_id is None
    assert load_truths(path, "test") == {"a": {"finding": "benign"}}
    assert load_truths(path) is None
    with pytest.raises(TextsError, match="no case of the split 'val'; it has test, train"):
        gather(path, "val")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"case_id": "a"}', "line 1 has none of text.*it has case_id"),
        ("a.jsonl", '{"case_id": "a", "text": null}', "line 1: the text of 'a' is null"),
        ("a.jsonl", '{"text": "a"}', "line 1 has no case_id.*it has text"),
        ("a.jsonl", "\nnope", "line 2 is not JSON"),
        ("a.jsonl", "[1]", "line 1 is a JSON list"),
        ("a.json", "3", "JSON int"),
        ("a.json", '{"a": 3}', "'a' is int"),
        ("a.json", '{"a": "x", "a": "y"}', "has a more than once"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '{"a": "\\ud800"}', "half a character"),
        ("a.txt", "x", r"\.txt is not read"),
        ("a", "x", "without an ending is not read"),
        ("a.jsonl", '{"id": "a", "texts": ["x", "y"]}', "several for a"),
        ("a.jsonl", "", "holds no report"),
        ("a.csv", "", "holds no report"),
        ("a.csv", "id,text\n", "holds no report"),
        ("a.json", "", "holds no report"),
        ("a.json", "{}", "holds no report"),
        ("a.csv", "id,text\na,b,c\n", "line 2 has 3 cells and the header has 2"),
        ("a.csv", 'id,text\na,"b\n', "is not CSV"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(TextsError, match=message) as caught:
        load_predictions(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_is_a_clear_error(tmp_path: Path):
    with pytest.raises(TextsError, match="cannot read texts"):
        load_texts(tmp_path / "none.json")


def test_another_encoding_is_named_with_the_byte_and_the_way_out(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("id,text\na,Geschwür\n".encode("latin-1"))
    with pytest.raises(TextsError, match=r"byte 16 is not UTF-8; save it as UTF-8 \(iconv"):
        load_texts(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.jsonl"])
def test_a_huge_report_is_refused_by_its_id_or_line(tmp_path: Path, name: str):
    huge = "word " * (MAX_CHARACTERS // 4)
    content = {"a.json": json.dumps({"a": huge}), "a.jsonl": json.dumps({"id": "a", "text": huge})}
    (tmp_path / name).write_text(content.get(name, f"id,text\na,{huge}\n"))
    with pytest.raises(TextsError, match="characters"):
        load_texts(tmp_path / name)


def test_a_report_of_the_longest_length_is_scored_in_seconds(tmp_path: Path):
    from wsi_mivpg.evaluation import text_scores

    long = ("tumor cells " * MAX_CHARACTERS)[:MAX_CHARACTERS].strip()
    assert text_scores({"a": long, "b": "x"}, {"a": [long], "b": ["x"]})["rouge_l"] == pytest.approx(1.0)
