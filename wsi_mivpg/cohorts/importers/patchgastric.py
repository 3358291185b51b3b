"""PatchGastricADC22: ``captions.csv`` (id, subtype, text) and patches called ``{id}_{hash}.jpg``.

One case a slide; its patches are found in the images' folder at any depth (the archive doubles its folder), and ids
without patches are left out, since the published list names more slides than there are.
"""

import csv
from pathlib import Path

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.records import Reading, Record
from wsi_mivpg.errors import CohortError

_COLUMNS = ("id", "subtype", "text")
_FILE = "captions.csv"


def read(source: Path) -> Reading:
    """Read the captions from the file, or from the folder that has it; spaces at a caption's ends are taken off."""
    path = _captions_file(source)
    reading = Reading()
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        if not set(_COLUMNS) <= set(rows.fieldnames or ()):
            raise CohortError(f"{path}: the columns are {rows.fieldnames}; PatchGastricADC22 has {', '.join(_COLUMNS)}")
        for row in rows:
            name, subtype, text = ((row[column] or "").strip() for column in _COLUMNS)
            if not name or not text:
                raise CohortError(f"{path}, line {rows.line_num}: id {name!r}, text {text!r}; both are needed")
            case = Case(name, (), (), (text,), None, attributes={"subtype": subtype} if subtype else {})
            known = reading.records.get(name)
            if known is None:
                reading.add(Record(case, (), (name,), are_pictures=True), path)
            elif known.case == case:
                reading.left_out["rows that are there twice"] += 1
            else:
                raise CohortError(f"{path}, line {rows.line_num}: id {name!r} has another caption above; keep one")
    return reading


def _captions_file(source: Path) -> Path:
    if source.is_file():
        return source
    found = sorted(source.rglob(_FILE))
    if len(found) != 1:
        raise CohortError(f"{source}: {len(found)} files called {_FILE} below it; name the one")
    return found[0]
