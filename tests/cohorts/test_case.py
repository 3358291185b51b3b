"""Manifests read back what was written in every form; what is wrong in one is named with row and column."""

import contextlib
import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mivpg.cohorts.case import Case, read_manifest, write_manifest
from wsi_mivpg.errors import CohortError

SUFFIXES = ["csv", "jsonl", "parquet"]


def _case(folder: Path, name: str = "one") -> Case:
    return Case(
        name, (folder / "slides" / "ä.tiff",), (folder / "bags" / "ä.h5",), ("A report.",), "val", {"finding": "x"}
    )


def _manifest(tmp_path: Path, text: str, name: str = "bad.csv") -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


@pytest.fixture
def every_field(tmp_path: Path) -> list[Case]:
    folder = tmp_path / "here"
    return [
        _case(folder),
        Case(
            "two",
            (folder / "a.svs", folder / "b.svs"),
            (folder / "a.h5",),
            ('Line one,\nline "two"; three.', "[Another wording]"),
            "train",
            patient_id="p1",
            attributes={"subtype": "papillary", "age": "61"},
        ),
        Case("three", (), (), (), None, image_paths=(folder / "1.jpg", folder / "2.jpg"), attributes={"age": "5"}),
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_manifest_reads_back_wherever_its_folder_is_moved(
    tmp_path: Path, every_field: list[Case], suffix: str
) -> None:
    write_manifest(tmp_path / "here" / f"cohort.{suffix}", every_field)
    (tmp_path / "here").rename(tmp_path / "there")

    def moved(paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(tmp_path / "there" / path.relative_to(tmp_path / "here") for path in paths)

    assert read_manifest(tmp_path / "there" / f"cohort.{suffix}") == [
        replace(
            case,
            slide_paths=moved(case.slide_paths),
            bag_paths=moved(case.bag_paths),
            image_paths=moved(case.image_paths),
        )
        for case in every_field
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=25)
@given(reports=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3))
def test_any_report_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, reports: list[str]
) -> None:
    path = tmp_path_factory.mktemp("texts") / f"cohort.{suffix}"
    case = Case("a", (), (), tuple(reports), "test")
    write_manifest(path, [case])
    assert read_manifest(path) == [case]


def test_a_link_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "0f3a").write_bytes(b"")
    (tmp_path / "a.h5").symlink_to(tmp_path / "cache" / "0f3a")
    write_manifest(tmp_path / "c.jsonl", [Case("a", (), (tmp_path / "a.h5",), (), None)])
    assert read_manifest(tmp_path / "c.jsonl")[0].bag_paths == (tmp_path / "a.h5",)


def test_a_row_for_each_slide_makes_one_case(tmp_path: Path) -> None:
    path = _manifest(
        tmp_path,
        "case_id,slide_id,path,mpp,report,split,scanner,patient\n"
        "a,s1,one.svs,0.25,A report.,train,GT450,p\n"
        "b,s9,nine.svs,0.25,Another.,test,GT450,q\n"
        "a,s2,two.svs,0.5,,,AT2,\n",
    )
    first, second = read_manifest(path)
    assert first.slide_paths == (tmp_path / "one.svs", tmp_path / "two.svs")
    assert (first.reports, first.split, first.patient_id) == (("A report.",), "train", "p")
    assert first.attributes == {"slide_id": "s1;s2", "mpp": "0.25;0.5", "scanner": "GT450;AT2"}
    assert second.case_id == "b"


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheet_of_another_country_is_read(tmp_path: Path, separator: str) -> None:
    text = f'\ufeffcase_id{separator}slides{separator}report\na{separator}"x.svs;y.svs"{separator}Größe, 3 mm\n'
    (case,) = read_manifest(_manifest(tmp_path, text))
    assert [path.name for path in case.slide_paths] == ["x.svs", "y.svs"]
    assert case.reports == ("Größe, 3 mm",)


def test_a_case_of_two_thousand_patches_fits_a_csv(tmp_path: Path) -> None:
    paths = tuple(tmp_path / "patches" / f"{'f' * 64}_{index:08}.jpg" for index in range(2000))
    write_manifest(tmp_path / "c.csv", [Case("a", (), (), ("x",), None, image_paths=paths)])
    assert read_manifest(tmp_path / "c.csv")[0].image_paths == paths


def test_only_the_id_must_be_there(tmp_path: Path) -> None:
    (case,) = read_manifest(_manifest(tmp_path, '{"case_id": "a"}', "c.jsonl"))
    assert case == Case("a", (), (), (), None)
    assert case.patient == "a"
    assert replace(case, patient_id="p").patient == "p"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.jsonl", "nonsense", "row 1: no JSON"),
        ("c.jsonl", '\n["a"]', "row 2: list, not an object"),
        ("c.jsonl", '{"case": "a"}', "row 1, column case_id: a case needs an id"),
        ("c.jsonl", '{"case_id": "a", "split": "dev"}', "row 1, column split: 'dev' is none of train, val, test"),
        ("c.jsonl", '{"case_id": "a", "bags": [1]}', r"row 1, column bags: \[1\] is not a path"),
        ("c.jsonl", '{"case_id": "a", "report": 5}', "row 1, column report: is not a text"),
        ("c.jsonl", '{"case_id": "a", "truth": "x"}', "row 1, column truth: no JSON"),
        ("c.jsonl", '{"case_id": "a"}\n' * 2, "row 2, column case_id: case 'a' is there twice, also in row 1"),
        ("c.csv", "case_id,Split\na,train\n\nb,Train\n", "row 4, column Split: 'Train' is none of"),
        ("c.csv", "case_id,report\na,one, two\n", "row 2: 3 cells below 2 columns"),
        ("c.csv", "case_id,path\na,s3://b/x.svs\n", "row 2, column path: s3://b/x.svs is an address"),
        ("c.csv", "case_id,slide,report\na,x,one\na,y,two\n", "row 3, column report: case 'a' has another in row 2"),
        ("c.csv", "case_id,slide,split\na,x,train\na,y,test\n", "row 3, column split: case 'a' has another"),
        ("c.csv", "case_id,x,x\na,1,2\n", "row 1, column x: is there twice"),
        ("c.csv", "", "no case in it"),
        ("c.jsonl", "\n", "no case in it"),
        ("c.xlsx", "x", "a manifest is a .csv, .parquet, .jsonl file"),
        ("c.parquet", "x", "not a Parquet file"),
    ],
)
def test_what_is_wrong_is_named_with_its_row_and_column(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = _manifest(tmp_path, text, name)
    with pytest.raises(CohortError, match=said) as raised:
        read_manifest(path)
    assert str(path) in str(raised.value)


def test_all_that_is_wrong_is_told_at_once_up_to_twenty(tmp_path: Path) -> None:
    rows = "".join(f"c{number},dev\n" for number in range(25))
    with pytest.raises(CohortError) as raised:
        read_manifest(_manifest(tmp_path, "case_id,split\n" + rows))
    lines = str(raised.value).splitlines()
    assert len(lines) == 21
    assert "row 21," in lines[19]
    assert lines[20] == "and 5 more"


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes("case_id,report\na,Größe\n".encode("latin-1"))
    with pytest.raises(CohortError, match=r"c\.csv: cannot be read .*UTF-8"):
        read_manifest(tmp_path / "c.csv")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"none\.jsonl does not exist"):
        read_manifest(tmp_path / "none.jsonl")


def test_a_csv_refuses_a_path_that_it_could_not_read_back(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="a `;`"):
        write_manifest(tmp_path / "c.csv", [Case("a", (tmp_path / "x;y.svs",), (), (), None)])
    assert not (tmp_path / "c.csv").exists()


def test_an_attribute_cannot_be_called_as_a_column(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="'split' cannot be an attribute's name"):
        write_manifest(tmp_path / "c.csv", [Case("a", (), (), (), None, attributes={"Split": "x"})])


def test_a_spreadsheet_shows_one_report_a_cell(tmp_path: Path) -> None:
    write_manifest(tmp_path / "c.csv", [_case(tmp_path)])
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["report"], row["slides"], row["bags"]) == ("A report.", "slides/ä.tiff", "bags/ä.h5")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_that_are_called_nearly_as_others_stay_what_they_were(tmp_path: Path, suffix: str) -> None:
    text = "case_id,id,report,text,patient_id,patient\na,7,A report.,Notes,,ward 3\n"
    cases = read_manifest(_manifest(tmp_path, text))
    assert (cases[0].reports, cases[0].patient_id) == (("A report.",), None)
    assert cases[0].attributes == {"id": "7", "text": "Notes", "patient": "ward 3"}
    write_manifest(tmp_path / f"again.{suffix}", cases)
    assert read_manifest(tmp_path / f"again.{suffix}") == cases


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "a", "train", "[", "x;y", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)
KEYS = ["case_id", "id", "split", "slides", "path", "bags", "images", "reports", "text", "truth", "patient_id", "", "x"]


@given(rows=st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), max_size=4))
def test_whatever_json_lines_hold_they_are_cases_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "c.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with contextlib.suppress(CohortError):
        cases = read_manifest(path)
        assert len(cases) == len({str(row.get("case_id", row.get("id"))).strip() for row in rows})
