"""TCGA barcodes are folded to patients, and frozen sections are told from diagnostic ones."""

from pathlib import Path

import pytest

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.tcga import Barcode, fold_tcga, patients_of, read_barcode, without_frozen

DX = "TCGA-3X-AAVA-01Z-00-DX1.83F8BC4B-2F62-4B72-B1B2-8A7C3E0C6B2C"
FROZEN = "TCGA-CR-7395-01A-01-TS1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (DX + ".svs", Barcode("TCGA-3X-AAVA", "01", "DX1")),
        (FROZEN, Barcode("TCGA-CR-7395", "01", "TS1")),
        ("TCGA-A6-2671-11A-01-BSA.svs", Barcode("TCGA-A6-2671", "11", "BSA")),
        ("tcga-a2-a1fx-01z-00-dx1", Barcode("TCGA-A2-A1FX", "01", "DX1")),
        ("TCGA-A2-A1FX", Barcode("TCGA-A2-A1FX")),
        ("TCGA-A2-A1FX-06A", Barcode("TCGA-A2-A1FX", "06")),
        ("brca/TCGA-A2-A1FX-01Z-00-DX1.h5", Barcode("TCGA-A2-A1FX", "01", "DX1")),
        ("TCGA-A2-A1FXX", None),
        ("C3L-00001-21", None),
    ],
)
def test_a_barcode_is_read(name: str, expected: Barcode | None) -> None:
    assert read_barcode(name) == expected


def test_only_sections_of_frozen_tissue_are_frozen() -> None:
    frozen = {name: read_barcode(name).is_frozen for name in (DX, FROZEN, "TCGA-A6-2671-11A-01-BSA", "TCGA-A6-2671")}
    assert frozen == {DX: False, FROZEN: True, "TCGA-A6-2671-11A-01-BSA": True, "TCGA-A6-2671": False}


def test_slides_of_a_patient_are_folded_and_others_stay() -> None:
    cases = [
        Case(DX, (), (), ("x",), None),
        Case("case 7", (Path("TCGA-3X-AAVA-11A-00-DX2.svs"),), (), ("x",), None, attributes={"a": "b"}),
        Case("own", (), (), ("x",), None),
        Case("stated", (Path(DX),), (), ("x",), None, patient_id="somebody"),
        Case("long", (), (), ("x",), None, patient_id=DX),
    ]
    folded = fold_tcga(cases)
    assert [case.patient_id for case in folded] == ["TCGA-3X-AAVA", "TCGA-3X-AAVA", None, "somebody", "TCGA-3X-AAVA"]
    assert folded[1].attributes == {"a": "b", "tcga_sample_type": "11"}
    assert folded[2:4] == cases[2:4]


def test_a_patient_is_known_without_folding() -> None:
    assert patients_of(Case(DX, (), (), (), None)) == {"TCGA-3X-AAVA"}
    assert patients_of(Case("a", (), (Path(DX + ".h5"),), (), None)) == {"TCGA-3X-AAVA"}
    assert patients_of(Case("a", (Path(DX),), (), (), None, patient_id="p")) == {"p"}
    assert patients_of(Case("a", (), (), (), None)) == {"a"}


def test_frozen_sections_are_left_out_with_their_bags() -> None:
    both = Case("a", (Path(DX + ".svs"), Path(FROZEN + ".svs")), (Path(DX + ".h5"), Path(FROZEN + ".h5")), (), None)
    only = Case("b", (Path(FROZEN + ".svs"),), (), (), None)
    named = Case(FROZEN, (), (), (), None)
    own = Case("c", (), (), (), None)
    kept = without_frozen([both, only, named, own])
    assert [case.case_id for case in kept] == ["a", "c"]
    assert (kept[0].slide_paths, kept[0].bag_paths) == ((Path(DX + ".svs"),), (Path(DX + ".h5"),))
