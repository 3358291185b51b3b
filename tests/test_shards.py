"""Lists for the jobs of a workflow: everything in one list, and nothing moves."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_mivpg.cohorts.case import Case, read_manifest, write_manifest
from wsi_mivpg.extraction.inputs import SlideInput
from wsi_mivpg.extraction.inputs import read_manifest as read_slides
from wsi_mivpg.extraction.inputs import write_manifest as write_slides
from wsi_mivpg.shards import assign

Run = Callable[..., tuple[int, str, str]]
Ids = st.lists(st.integers(0, 60).map(str), unique=True)


@given(first=Ids, second=Ids, size=st.integers(1, 7), later_size=st.integers(1, 7))
def test_everything_is_in_one_list_and_stays_there(
    first: list[str], second: list[str], size: int, later_size: int
) -> None:
    before = assign(first, {}, size)
    after = assign(second, before, later_size)
    assert sorted(one for inside in after.values() for one in inside) == sorted(second)
    assert all(0 < len(inside) <= max(size, later_size) for inside in after.values())
    was = {one: name for name, inside in before.items() for one in inside}
    for name, inside in after.items():
        assert {was.get(one, name) for one in inside} == {name}, "a known item moved"
        if name in before:
            assert set(inside) <= set(before[name]), "a new item came into an old list"


def test_the_first_lists_are_full_and_in_order() -> None:
    assert assign(["c", "a", "b"], {}, 2) == {"0001": ["c", "a"], "0002": ["b"]}


@pytest.fixture
def table(tmp_path: Path) -> Callable[[int], Path]:
    """Return what writes a table of so many slides, which need not exist."""

    def write(count: int) -> Path:
        slides = [SlideInput(f"s{i}", tmp_path / "slides" / f"f{i}.svs", f"c{i}", 0.25) for i in range(count)]
        write_slides(tmp_path / "cohort.csv", slides)
        return tmp_path / "cohort.csv"

    return write


def test_lists_of_slides_keep_ids_cases_and_resolutions(run: Run, table: Callable[[int], Path], tmp_path: Path) -> None:
    code, out, _ = run("shards", table(5), "--size", 2, "--out", tmp_path / "deep" / "lists", "--json")
    assert code == 0
    assert '"0003": [' in out
    first = read_slides(tmp_path / "deep" / "lists" / "0001.csv")[0]
    assert (first.slide_id, first.case_id, first.mpp) == ("s0", "c0", 0.25)
    assert Path(first.source).resolve() == tmp_path / "slides" / "f0.svs"


def test_a_cohort_that_states_the_splits_is_divided_as_ever(
    run: Run, table: Callable[[int], Path], tmp_path: Path
) -> None:
    lines = table(4).read_text().splitlines()
    of_split = zip(lines, ("split", "train", "test", "train", "test"), strict=True)
    table(4).write_text("\n".join(f"{line},{split}" for line, split in of_split))
    needed = ("--needs-split", "train", "--needs-split", "test")
    code, _, err = run("shards", tmp_path / "cohort.csv", *needed, "--size", 3, "--out", tmp_path / "lists")
    assert code == 0, err
    assert [len(read_slides(path)) for path in sorted((tmp_path / "lists").iterdir())] == [3, 1]


def test_a_list_that_stays_the_same_is_not_touched(run: Run, table: Callable[[int], Path], tmp_path: Path) -> None:
    run("shards", table(4), "--size", 2, "--out", tmp_path / "lists")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "lists").iterdir()}
    run("shards", table(5), "--size", 2, "--out", tmp_path / "lists")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "lists").iterdir()}
    assert after.keys() - times.keys() == {"0003.csv"}
    assert {name: after[name] for name in times} == times
    run("shards", table(1), "--size", 2, "--out", tmp_path / "lists")
    assert {path.name for path in (tmp_path / "lists").iterdir()} == {"0001.csv"}
    assert [slide.slide_id for slide in read_slides(tmp_path / "lists" / "0001.csv")] == ["s0"]


def test_lists_of_cases_take_one_split_and_lead_to_the_same_files(run: Run, tmp_path: Path) -> None:
    splits = ("train", "test", "test")
    cases = [Case(f"c{i}", (), (tmp_path / f"{i}.h5",), ("benign",), split) for i, split in enumerate(splits)]
    write_manifest(tmp_path / "cohort.jsonl", cases)
    options = ("--cases", "--split", "test", "--size", 1, "--out", tmp_path / "lists")
    assert run("shards", tmp_path / "cohort.jsonl", *options)[0] == 0
    second = read_manifest(tmp_path / "lists" / "0002.jsonl")
    assert [(case.case_id, case.reports) for case in second] == [("c2", ("benign",))]
    assert second[0].bag_paths[0].resolve() == tmp_path / "2.h5"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("absent.csv",), 1, "absent.csv"),
        (("cohort.jsonl", "--split", "test"), 2, "pass --cases"),
        (("cohort.jsonl", "--cases", "--split", "val"), 1, "no case of split 'val'"),
        (("cohort.jsonl", "cohort.jsonl", "--cases"), 2, "give one manifest"),
        (("cohort.jsonl", "cohort.jsonl", "--needs-split", "test"), 2, "give one manifest"),
        (("cohort.jsonl", "--needs-split", "all"), 2, "not train, val or test"),
        (("cohort.jsonl", "--needs-split", "test", "--needs-split", "val"), 1, "no case of split 'val'"),
    ],
)
def test_what_cannot_be_divided_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path / "cohort.jsonl", [Case("a", (), (), ("benign",), "test")])
    found, _, err = run("shards", *arguments, "--out", "lists")
    assert found == code
    assert said in err
