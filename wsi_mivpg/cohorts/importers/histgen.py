"""HistGen's and R2Gen's JSON: ``{"train": [{"id", "report", "image_path", "split"}], "val": […], "test": […]}``.

HistGen's features are called as the id; R2Gen's pictures as `image_path` says.
"""

from pathlib import Path, PurePosixPath

from wsi_mivpg.cohorts.case import SPLITS, Case
from wsi_mivpg.cohorts.importers.records import (
    PICTURE_SUFFIXES,
    Reading,
    Record,
    bare_name,
    objects,
    read_json,
    text_of,
)
from wsi_mivpg.errors import CohortError


def read(source: Path) -> Reading:
    """Read the file; the splits are those that it states."""
    data = read_json(source)
    if not isinstance(data, dict) or not set(SPLITS) & set(data):
        raise CohortError(f"{source}: not HistGen's form; it has an object with the lists {', '.join(SPLITS)}")
    reading = Reading()
    for split in SPLITS:
        for where, one in objects(data.get(split, []), f"{source}, {split!r}"):
            name = bare_name(text_of(one, "id", where))
            images = one.get("image_path") or []
            paths = [PurePosixPath(path) for path in ([images] if isinstance(images, str) else images)]
            pictures = any(path.suffix.lower() in PICTURE_SUFFIXES for path in paths)
            case = Case(name, (), (), (text_of(one, "report", where),), split)
            names = tuple("/".join((*path.parts[-3:-1], bare_name(path.name))) for path in paths) if pictures else ()
            reading.add(Record(case, names, (name,), are_pictures=pictures), source)
    return reading
