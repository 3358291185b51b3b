"""A user's own table or a manifest of this package (`case.read_manifest`), to give its cases their files.

A slide's bag is called as the slide without its suffix, or as the column `slide_id` says, as `extract` names bags.
"""

from pathlib import Path

from wsi_mivpg.cohorts.case import Case, read_manifest
from wsi_mivpg.cohorts.importers.records import Reading, Record


def read(source: Path) -> Reading:
    """Read a .csv, .parquet or .jsonl manifest."""
    reading = Reading()
    for case in read_manifest(source):
        pictures = bool(case.image_paths) and not case.slide_paths
        # A case of pictures is either one bag (patches of a slide), called as the case, or one bag a picture.
        prefixes = () if case.slide_paths else (case.case_id,)
        reading.add(Record(case, _names(case), prefixes, are_pictures=pictures), source)
    return reading


def _names(case: Case) -> tuple[str, ...]:
    stated = [name for name in case.attributes.get("slide_id", "").split(";") if name]
    paths = case.slide_paths or case.image_paths
    if len(stated) == len(paths) and stated:
        return tuple(stated)
    return tuple(dict.fromkeys(path.stem for path in paths))
