"""HISTAI's case JSON: diagnosis, conclusion, micro_protocol, grossing …, and `case_mapping`, the folder of its slides.

One file of a list, JSON Lines, or a folder of JSON files. Slides are ``<set>/case_<n>/slide_<stain>_<number>.tiff``.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.records import Reading, Record, objects, read_json, text_of
from wsi_mivpg.errors import CohortError

_SECTIONS = {
    "grossing": "Gross description",
    "micro_protocol": "Microscopic description",
    "conclusion": "Conclusion",
}
"""Field -> header, in the report's order; the headers are those that `report_text` knows, so each can be dropped."""
_ATTRIBUTES = ("diagnosis", "diff_diagnosis", "icd10", "age", "gender", "specialization")
_STAIN = "H&E"


def read(source: Path) -> Reading:
    """Read the cases with their H&E slides; the report is gross description, microscopic description and conclusion.

    HISTAI states no patients: each case counts as one.
    """
    files = sorted(source.rglob("*.json")) if source.is_dir() else [source]
    if not files:
        raise CohortError(f"{source}: no JSON file in this folder")
    reading = Reading()
    for path in files:
        data = read_json(path)
        for where, one in objects([data] if isinstance(data, dict) else data, str(path)):
            _add(reading, one, where, path)
    return reading


def _add(reading: Reading, one: dict[str, Any], where: str, path: Path) -> None:
    place = PurePosixPath(text_of(one, "case_mapping", where))
    parts = {header: text_of(one, name, where, needed=False) for name, header in _SECTIONS.items()}
    report = "\n".join(f"{header}: {text}" for header, text in parts.items() if text)
    if not report:
        reading.left_out["cases without a report"] += 1
        return
    attributes = {name: text for name in _ATTRIBUTES if (text := text_of(one, name, where, needed=False))}
    number = place.name.removeprefix("case_")
    folder = "/".join(place.parts[-2:])
    name = folder.replace("/", "_")
    # In folders as published; flat, with the names of set and case; with the case alone; with its number alone.
    prefixes = (folder, name, f"case_{number}", f"{number}_slide")
    case = Case(name, (), (), (report,), None, attributes={"set": place.parent.name, **attributes})
    reading.add(Record(case, (), prefixes, contains=_STAIN), path)
