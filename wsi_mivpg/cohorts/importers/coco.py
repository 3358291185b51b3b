"""COCO's captions: the JSON of the Karpathy split (`dataset_coco.json`) or COCO's own (`captions_train2014.json`).

One case a picture, its captions as equally right wordings. COCO's own files state no split.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.records import Reading, Record, bare_name, objects, read_json, text_of
from wsi_mivpg.errors import CohortError

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
"""Karpathy's names; `restval` is what everybody adds to train."""


def read(source: Path) -> Reading:
    """Read either form."""
    data = read_json(source)
    if not isinstance(data, dict) or "images" not in data:
        raise CohortError(f"{source}: not COCO's captions; they are an object with the list 'images'")
    images = list(objects(data["images"], f"{source}, 'images'"))
    reading = Reading()
    captions = _captions(data, source) if "annotations" in data else None
    for where, one in images:
        if captions is None:
            texts = _sentences(one, where)
            split = text_of(one, "split", where)
            if split not in _SPLITS:
                raise CohortError(f"{where}: split {split!r} is none of {', '.join(_SPLITS)}")
            name = text_of(one, "filename", where)
            place = text_of(one, "filepath", where, needed=False)
            _add(reading, name, place, texts, _SPLITS[split], source)
        else:
            texts = captions.get(text_of(one, "id", where), ())
            _add(reading, text_of(one, "file_name", where), "", texts, None, source)
    return reading


def _sentences(image: dict[str, Any], where: str) -> tuple[str, ...]:
    found = objects(image.get("sentences"), f"{where}, 'sentences'")
    return tuple(text_of(sentence, "raw", there) for there, sentence in found)


def _captions(data: dict[str, Any], source: Path) -> dict[str, tuple[str, ...]]:
    captions: dict[str, tuple[str, ...]] = {}
    for where, one in objects(data["annotations"], f"{source}, 'annotations'"):
        image = text_of(one, "image_id", where)
        captions[image] = (*captions.get(image, ()), text_of(one, "caption", where))
    return captions


def _add(reading: Reading, file_name: str, place: str, texts: tuple[str, ...], split: str | None, source: Path) -> None:
    if not texts:
        reading.left_out["pictures without a caption"] += 1
        return
    name = bare_name(file_name)
    names = ("/".join((PurePosixPath(place).name, name)),) if place else (name,)
    # A bag, and a picture in a folder of another name, is found by the picture's name alone, which is unique.
    case = Case(name, (), (), tuple(" ".join(text.split()) for text in texts), split)
    reading.add(Record(case, names, (name,), are_pictures=True), source)
