"""Cohorts in the forms in which data sets are published: one small reader for each, one table of them.

A reader turns a data set's own file or folder into cases; `files` then finds their slides, pictures and bags by name.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from wsi_mivpg.cohorts.importers import abo, coco, conversations, histai, histgen, own, patchgastric, pathtext, reg2025
from wsi_mivpg.cohorts.importers.files import Imported, attach_files
from wsi_mivpg.cohorts.importers.records import Reading
from wsi_mivpg.cohorts.tcga import fold_tcga
from wsi_mivpg.errors import CohortError

FORMATS: Mapping[str, Callable[[Path], Reading]] = {
    "manifest": own.read,
    "csv": own.read,
    "histgen": histgen.read,
    "r2gen": histgen.read,
    "pathtext": pathtext.read,
    "reg2025": reg2025.read,
    "histai": histai.read,
    "slidechat": conversations.read,
    "llava": conversations.read,
    "patchgastric": patchgastric.read,
    "coco": coco.read,
    "abo": abo.read,
}
"""Name of a format -> its reader."""


def import_cohort(
    form: str, source: Path, *, bags: Path | None = None, images: Path | None = None, captions: Path | None = None
) -> Imported:
    """Read a data set's cases, find their files, and fold TCGA barcodes to patients.

    Args:
        form: a key of `FORMATS`.
        source: the data set's file or folder.
        bags: the folder of the slides' bags, found by name.
        images: the folder of the slides, patches or pictures, found by name.
        captions: for "abo" alone: a CSV of product ids and captions (Cap3D's) in place of the products' names.

    Raises:
        CohortError: the format is not known, the source is not of that format, or no case is left.
    """
    if form not in FORMATS:
        raise CohortError(f"format {form!r} is none of {', '.join(FORMATS)}")
    if captions is not None and form != "abo":
        raise CohortError(f"captions in a file of their own belong to abo; {form} has them in {source}")
    if not source.exists():
        raise CohortError(f"{source}: no such file or folder; check the path")
    reading = FORMATS[form](source) if captions is None else abo.read(source, captions)
    found = attach_files(reading, bags=bags, images=images)
    return Imported(tuple(fold_tcga(found.cases)), found.left_out, found.incomplete)


__all__ = ["FORMATS", "Imported", "import_cohort"]
