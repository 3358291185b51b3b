"""PathText: folders ``PathText/TCGA_BRCA/<case>/annotation``, a JSON text without suffix, beside a PDF."""

from pathlib import Path

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.records import Reading, Record, read_json
from wsi_mivpg.errors import CohortError

_FILE = "annotation"


def read(source: Path) -> Reading:
    """Read the folder of one project or of all; a case's bags begin with its name (the patient's barcode)."""
    reading = Reading()
    for path in sorted(source.rglob(_FILE)):
        name, project = path.parent.name, path.parent.parent.name
        text = read_json(path)
        if not isinstance(text, str):
            raise CohortError(f"{path}: {type(text).__name__}, not one text")
        if not text.strip():
            reading.left_out["annotations without text"] += 1
            continue
        attributes = {"project": project} if project.upper().startswith("TCGA") else {}
        reading.add(Record(Case(name, (), (), (text.strip(),), None, attributes=attributes), (), (name,)), source)
    if not reading.records:
        raise CohortError(f"{source}: no file <project>/<case>/{_FILE} below it; give PathText's own folder")
    return reading
