"""TCGA barcodes: which patient, sample and kind of section a slide is of. Names only; no file is opened.

`TCGA-A2-A1FX-01Z-00-DX1` is patient TCGA-A2-A1FX, a primary tumour (01), a diagnostic section (DX) of fixed tissue.
Sections from the top, middle or bottom of the frozen portion (TS, MS, BS) look different and were read for other ends.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_mivpg.cohorts.case import Case

_BARCODE = re.compile(
    r"(?<![A-Z0-9])(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Z0-9])"
    r"(?:-(?P<sample>\d{2})[A-Z]?(?:-\d{2}[A-Z]?(?:-(?P<section>(?:DX|TS|MS|BS)[A-Z0-9]+)(?![A-Z0-9]))?)?)?",
    re.IGNORECASE,
)
_FROZEN = ("TS", "MS", "BS")


@dataclass(frozen=True)
class Barcode:
    """What a barcode says.

    Attributes:
        patient: the first 12 characters.
        sample_type: "01" primary tumour, "06" metastasis, "11" normal tissue …; "" where the barcode is shorter.
        section: "DX1", "TS1", "TSA", "BS1" …; "" where the barcode is shorter.
    """

    patient: str
    sample_type: str = ""
    section: str = ""

    @property
    def is_frozen(self) -> bool:
        """Whether it is a section of frozen tissue."""
        return self.section.startswith(_FROZEN)


def read_barcode(name: str) -> Barcode | None:
    """Return the barcode in a name (a file's, a case's), or None."""
    found = _BARCODE.search(name)
    if found is None:
        return None
    return Barcode(*(found[part].upper() if found[part] else "" for part in ("patient", "sample", "section")))


def patients_of(case: Case) -> set[str]:
    """Return every name by which the case's patient is known.

    That is `patient_id`, else what the case's id and its files' names say as TCGA barcodes, else the case's id.
    A `patient_id` that is a longer barcode counts as its patient.
    """
    stated = _patients([case.patient_id]) or {case.patient_id} if case.patient_id else set()
    return stated or _patients(_names(case)) or {case.case_id}


def fold_tcga(cases: Iterable[Case]) -> list[Case]:
    """State the patient of every case whose names are TCGA barcodes of one patient; the others stay as they are.

    The sample's type, where it is one, becomes the attribute `tcga_sample_type`.
    """
    return [_folded(case) for case in cases]


def without_frozen(cases: Iterable[Case]) -> list[Case]:
    """Leave out the frozen sections of TCGA, and the cases that have no other slide, bag or image."""
    kept = []
    for case in cases:
        parts = (case.slide_paths, case.bag_paths, case.image_paths)
        fixed = tuple(tuple(path for path in paths if not _is_frozen(path.name)) for paths in parts)
        if _is_frozen(case.case_id) or (any(parts) and not any(fixed)):
            continue
        kept.append(replace(case, slide_paths=fixed[0], bag_paths=fixed[1], image_paths=fixed[2]))
    return kept


def _folded(case: Case) -> Case:
    barcodes = [code for name in (case.patient_id, *_names(case)) if name and (code := read_barcode(name))]
    patients = {code.patient for code in barcodes}
    if len(patients) != 1 or (case.patient_id and read_barcode(case.patient_id) is None):
        return case
    samples = {code.sample_type for code in barcodes} - {""}
    extra = {"tcga_sample_type": samples.pop()} if len(samples) == 1 else {}
    return replace(case, patient_id=patients.pop(), attributes={**case.attributes, **extra})


def _names(case: Case) -> list[str]:
    paths: Sequence[Path] = (*case.slide_paths, *case.bag_paths, *case.image_paths)
    return [case.case_id, *(path.name for path in paths)]


def _patients(names: Iterable[str]) -> set[str]:
    return {code.patient for name in names if (code := read_barcode(name))}


def _is_frozen(name: str) -> bool:
    code = read_barcode(name)
    return code is not None and code.is_frozen
