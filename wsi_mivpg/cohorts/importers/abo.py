"""Amazon Berkeley Objects: listings (JSON Lines, mostly .gz), the table of its images, and captions of its products.

One case a product with all its catalogue pictures, the main one first. The paper takes captions that people wrote
(Cap3D's CSV) in place of the products' names.
"""

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.records import Reading, Record, objects, text_of
from wsi_mivpg.errors import CohortError

_ENGLISH = "en"
_KIND = "general"
"""Cap3D's table for ABO has two captions a product, of its look as a whole and of its parts; this is the former."""


def read(source: Path, captions: Path | None = None) -> Reading:
    """Read the products below the data set's folder.

    Args:
        source: the folder with ``listings/metadata/listings_*.json(.gz)`` and ``images/metadata/images.csv(.gz)``.
        captions: CSV of product id, maybe a kind, and caption; without it the English name is the report.
    """
    listings = sorted(path for path in source.rglob("listings_*.json*") if path.suffix in (".json", ".gz"))
    tables = sorted(path for path in source.rglob("images.csv*") if path.suffix in (".csv", ".gz"))
    if not listings or len(tables) != 1:
        raise CohortError(
            f"{source}: {len(listings)} files listings_*.json and {len(tables)} files images.csv below it; give the "
            "folder of Amazon Berkeley Objects, with one table of images"
        )
    image_names = {row["image_id"]: _name(row["path"]) for row in _table(tables[0])}
    texts = None if captions is None else _captions(captions)
    reading = Reading()
    for path in listings:
        for where, one in objects(list(_lines(path)), str(path)):
            _add(reading, one, where, image_names, texts, path)
    return reading


def _add(
    reading: Reading,
    one: dict[str, Any],
    where: str,
    image_names: dict[str, str],
    texts: dict[str, str] | None,
    path: Path,
) -> None:
    item = text_of(one, "item_id", where)
    ids = [one.get("main_image_id"), *(one.get("other_image_id") or [])]
    names = tuple(dict.fromkeys(image_names[str(name)] for name in ids if str(name) in image_names))
    keys = (item, text_of(one, "3dmodel_id", where, needed=False))
    text = _english(one.get("item_name")) if texts is None else next((texts[key] for key in keys if key in texts), "")
    if item in reading.records:
        reading.left_out["further listings of a product"] += 1
    elif not text:
        reading.left_out["products without a caption"] += 1
    elif not names:
        reading.left_out["products without a picture"] += 1
    else:
        kind = _english(one.get("product_type"), any_language=True)
        case = Case(item, (), (), (text,), None, attributes={"product_type": kind} if kind else {})
        reading.add(Record(case, names, are_pictures=True), path)


def _name(path: str) -> str:
    """Return `14/14fe8812` of `14/14fe8812.jpg`: the folder tells pictures of one name apart."""
    place = PurePosixPath(path)
    return "/".join((*place.parts[-2:-1], place.stem))


def _english(values: Any, *, any_language: bool = False) -> str:
    said = [one for one in values or [] if isinstance(one, dict) and one.get("value")]
    tagged = [one for one in said if any_language or str(one.get("language_tag", "")).startswith(_ENGLISH)]
    return str(tagged[0]["value"]).strip() if tagged else ""


def _captions(path: Path) -> dict[str, str]:
    """Return product id -> caption, of a table without a header, or with one that begins with `id` or `uid`."""
    found: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        for number, row in enumerate(csv.reader(stream), start=1):
            if not row or (number == 1 and row[0].strip().lower() in ("id", "uid", "item_id", "product_id")):
                continue
            if len(row) < 2:
                raise CohortError(f"{path}, line {number}: {row}; a line is a product's id and its caption")
            kinds = row[1:-1]
            if not kinds or kinds[0].strip().lower() == _KIND:
                found.setdefault(row[0].strip(), row[-1].strip())
    if not found:
        raise CohortError(f"{path}: no caption in it; a line is a product's id and its caption")
    return found


def _lines(path: Path) -> Iterator[Any]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise CohortError(f"{path}, line {number}: no JSON ({error}); copy the file again") from error
    except (OSError, EOFError) as error:
        raise CohortError(f"{path}: cannot be read ({error}); copy the file again") from error


def _table(path: Path) -> list[dict[str, str]]:
    with (
        gzip.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".gz" else path.open(newline="") as stream
    ):
        rows = csv.DictReader(stream)
        if not {"image_id", "path"} <= set(rows.fieldnames or ()):
            raise CohortError(f"{path}: the columns are {rows.fieldnames}; the table of images has image_id and path")
        return list(rows)
