"""`wsi-mivpg cohorts collect`: cases with all their bags, and why the others are left out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.provenance import PROVENANCE
from wsi_mivpg.bags import write_bag
from wsi_mivpg.cohorts.case import read_manifest
from wsi_mivpg.extraction.ledger import Ledger, StatusRow

Run = Callable[..., tuple[int, str, str]]
COHORT = """slide_id,path,case_id,report,split
a1,a1.svs,a,benign,train
a2,a2.svs,a,benign,train
b,b.svs,b,benign,test
c1,c1.svs,c,benign,test
c2,c2.svs,c,benign,test
d,d.svs,d,benign,test
"""


@pytest.fixture
def extracted(run: Run, tmp_path: Path) -> Path:
    """A cohort's folder after two jobs: a2 shows no tissue, nor does d, c2 failed, all others have tiles."""
    (tmp_path / "cohort.csv").write_text(COHORT)
    assert run("shards", tmp_path / "cohort.csv", "--size", 4, "--out", tmp_path / "shards")[0] == 0
    for name, tiles, shard in (("a1", 3, 1), ("a2", 0, 1), ("b", 2, 1), ("c1", 2, 1), ("d", 0, 2)):
        path = tmp_path / "bags" / f"000{shard}" / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        coords = np.arange(2 * tiles).reshape(tiles, 2) * 300
        provenance = dataclasses.replace(PROVENANCE, slide_id=name)
        write_bag(path, np.ones((tiles, 12), np.float16), coords, np.ones(tiles, np.float32), provenance)
    ledger = Ledger(tmp_path / "bags" / "0002")
    (tmp_path / "c2.svs").write_bytes(b"no slide")
    ledger.record(StatusRow("c2", str(tmp_path / "c2.svs"), "c", "failed", message="c2.svs is damaged"))
    ledger.write()
    return tmp_path


def collect(run: Run, folder: Path, *options: object) -> tuple[int, str, str]:
    where = ("--shards", folder / "shards", "--bags", folder / "bags", "--out", folder / "cohort.jsonl")
    return run("cohorts", "collect", folder / "cohort.csv", *where, *options)


def test_cases_get_their_bags_with_tissue_and_the_others_are_named(run: Run, extracted: Path) -> None:
    code, _, err = collect(run, extracted)
    assert code == 3
    found = {case.case_id: [path.stem for path in case.bag_paths] for case in read_manifest(extracted / "cohort.jsonl")}
    assert found == {"a": ["a1"], "b": ["b"]}
    assert "left out: c: slide c2: c2.svs is damaged" in err
    assert "left out: d: no tissue found" in err
    assert "c2.svs is damaged" in (extracted / "cohort.left-out.csv").read_text()


def test_too_many_cases_left_out_is_an_error(run: Run, extracted: Path) -> None:
    code, _, err = collect(run, extracted, "--most-left-out", 0.4)
    assert code == 1
    assert "2 of 4 cases" in err
    assert not (extracted / "cohort.jsonl").exists()


def test_a_slide_that_was_never_extracted_is_an_error(run: Run, extracted: Path) -> None:
    (extracted / "bags" / "0001" / "b.h5").unlink()
    code, _, err = collect(run, extracted)
    assert code == 1
    assert "slide 'b' has neither a bag nor a failure" in err
