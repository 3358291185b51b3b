"""REG2025's JSON: ``[{"id": "PIT_01_00002_01.tiff", "report": "Breast, core-needle biopsy;\\n  …"}]``."""

import re
from pathlib import Path

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.records import Reading, Record, bare_name, objects, read_json, text_of

_NAME = re.compile(r"(?P<specimen>[A-Za-z]+_\d+_\d+)_\d+")


def read(source: Path) -> Reading:
    """Read the file; the organ, which begins every report, becomes an attribute.

    The challenge states no patients. Names that differ in their last number only are taken for one patient's, so that
    a split can be too careful but not leak.
    """
    reading = Reading()
    for where, one in objects(read_json(source), str(source)):
        name, report = bare_name(text_of(one, "id", where)), text_of(one, "report", where)
        specimen = _NAME.fullmatch(name)
        organ = re.split(r"[,;\n]", report, maxsplit=1)[0].strip().lower()
        case = Case(
            name,
            (),
            (),
            (report,),
            None,
            patient_id=specimen["specimen"] if specimen else None,
            attributes={"organ": organ},
        )
        reading.add(Record(case, (name,)), source)
    return reading
