"""A case's evidence comes back from its file as it went, and anything else is refused by name."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from wsi_mivpg.errors import EvidenceError
from wsi_mivpg.evidence.slide_tiles import SlideTiles
from wsi_mivpg.evidence.store import Evidence, read_evidence, write_evidence

RNG = np.random.default_rng(0)
TEXT = "Größe: 3 mm. Keine Nekrose."
EVIDENCE = Evidence(
    case_id="case/1",
    text=TEXT,
    model="my model",
    slides=(
        SlideTiles("a", 0, RNG.integers(0, 4000, (5, 2)), 444.25, (4001, 3001)),
        SlideTiles("ä", 5, np.full((3, 2), -1), None, None),
    ),
    sentences=((0, 12), (13, 27)),
    weights={
        "attention": RNG.random((3, 8), np.float32),
        "gradient": RNG.normal(size=(3, 8)).astype(np.float32),
    },
    curves={"gradient": [{"deletion": RNG.random(4), "whole": np.float64(row)} for row in range(3)]},
)


def test_evidence_comes_back_as_it_went(tmp_path: Path):
    write_evidence(tmp_path / "deep" / "case.h5", EVIDENCE)
    back = read_evidence(tmp_path / "deep" / "case.h5")
    assert (back.case_id, back.text, back.model) == (EVIDENCE.case_id, TEXT, "my model")
    assert back.texts() == ["Größe: 3 mm.", "Keine Nekrose.", TEXT]
    assert [(s.slide_id, s.first, s.tile_size_l0, s.slide_size_px) for s in back.slides] == [
        ("a", 0, 444.25, (4001, 3001)),
        ("ä", 5, None, None),
    ]
    np.testing.assert_array_equal(back.coords, EVIDENCE.coords)
    assert back.weights.keys() == EVIDENCE.weights.keys()
    for method, weights in EVIDENCE.weights.items():
        np.testing.assert_array_equal(back.weights[method], weights)
        np.testing.assert_array_equal(back.slides[1].of(back.weights[method]), weights[:, 5:])
    assert back.curves.keys() == {"gradient"}
    for row, curves in enumerate(EVIDENCE.curves["gradient"]):
        assert back.curves["gradient"][row].keys() == curves.keys()
        np.testing.assert_array_equal(back.curves["gradient"][row]["deletion"], curves["deletion"])
        assert back.curves["gradient"][row]["whole"] == row


def test_the_same_evidence_gives_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        write_evidence(tmp_path / name, EVIDENCE)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_maps_that_do_not_fit_are_not_written_and_leave_nothing(tmp_path: Path):
    weights = {"attention": np.zeros((2, 8), np.float32)}
    with pytest.raises(EvidenceError, match=r"shape \(2, 8\), not \(3, 8\)"):
        write_evidence(tmp_path / "case.h5", replace(EVIDENCE, weights=weights, curves={}))
    with pytest.raises(EvidenceError, match="curves of 1 maps"):
        write_evidence(tmp_path / "case.h5", replace(EVIDENCE, curves={"gradient": [{}]}))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_evidence_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "case.h5"
    with pytest.raises(EvidenceError, match=r"case\.h5"):
        read_evidence(path)
    path.write_text("no HDF5")
    with pytest.raises(EvidenceError, match=r"case\.h5"):
        read_evidence(path)
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(EvidenceError, match="explain"):
        read_evidence(path)


@pytest.mark.parametrize("damage", ["schema", "coords", "weights"])
def test_damaged_evidence_is_refused_by_name(tmp_path: Path, damage: str):
    path = tmp_path / "case.h5"
    write_evidence(path, EVIDENCE)
    with h5py.File(path, "r+") as file:
        if damage == "schema":
            file["evidence"].attrs["schema"] = "wsi-mivpg-evidence/9"
        else:
            name = "evidence/coords" if damage == "coords" else "evidence/methods/attention/weights"
            shortened = file[name][:, :1]
            del file[name]
            file[name] = shortened
    with pytest.raises(EvidenceError, match=r"case\.h5.*explain"):
        read_evidence(path)
