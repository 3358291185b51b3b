"""Manifests read back what was written and name what is wrong in them."""

from pathlib import Path

import pytest

from wsi_mivpg.cohorts.case import Case, read_manifest, write_manifest
from wsi_mivpg.errors import CohortError


def _case(folder: Path, name: str = "one") -> Case:
    return Case(
        name, (folder / "slides" / "ä.tiff",), (folder / "bags" / "ä.h5",), ("A report.",), "val", {"finding": "x"}
    )


def test_a_manifest_reads_back_wherever_its_folder_is_moved(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    write_manifest(tmp_path / "here" / "cohort.jsonl", [_case(tmp_path / "here")])
    (tmp_path / "here").rename(tmp_path / "there")
    assert read_manifest(tmp_path / "there" / "cohort.jsonl") == [_case(tmp_path / "there")]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"case_id": "a"}', ":1: not a case"),
        ("nonsense", ":1: not a case"),
        ('{"case_id": "a", "slides": [], "bags": [], "reports": [], "split": "dev"}', "split 'dev'"),
        (
            '{"case_id": "a", "slides": [], "bags": [], "reports": [], "split": "val"}\n' * 2,
            ":2: case 'a' is there twice",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "bad.jsonl").write_text(lines)
    with pytest.raises(CohortError, match=said):
        read_manifest(tmp_path / "bad.jsonl")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"none\.jsonl does not exist"):
        read_manifest(tmp_path / "none.jsonl")
