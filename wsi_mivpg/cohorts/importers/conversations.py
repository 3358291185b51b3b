"""SlideChat's, WSI-LLaVA's and LLaVA's JSON: a list of ``{"id", "image", "conversations": [{"from", "value"}, …]}``.

`image` is a name or a list of one (`./BRCA/TCGA-A2-A1FX-01Z-00-DX1.csv`); "human" asks and "gpt" answers.
"""

from pathlib import Path
from typing import Any

from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.importers.records import Reading, Record, bare_name, objects, read_json, text_of
from wsi_mivpg.errors import CohortError

_PLACEHOLDER = "<image>"


def read(source: Path) -> Reading:
    """Read the first answer about every slide as its report; further answers and conversations are counted.

    The question becomes the attribute `question`.
    """
    reading = Reading()
    for where, one in objects(read_json(source), str(source)):
        images = one.get("image") or []
        names = [bare_name(str(image)) for image in (images if isinstance(images, list) else [images])]
        turns = list(objects(one.get("conversations"), f"{where}, 'conversations'"))
        asked, answers = _said(turns, ("human", "user")), _said(turns, ("gpt", "assistant"))
        if not names:
            reading.left_out["conversations without a slide"] += 1
            continue
        if not answers:
            raise CohortError(f"{where}: no answer; a turn is {{from: gpt, value: …}}")
        if len(answers) > 1:
            reading.left_out["further answers of a conversation"] += len(answers) - 1
        case_id = "+".join(names)
        if case_id in reading.records:
            reading.left_out["further conversations about a slide"] += 1
            continue
        question = " ".join(asked[0].replace(_PLACEHOLDER, " ").split()) if asked else ""
        case = Case(case_id, (), (), (answers[0],), None, attributes={"question": question} if question else {})
        # A name may lack what follows the barcode in the slides' own names (TCGA's UUID).
        record = Record(case, tuple(names) if len(names) > 1 else (), (names[0],) if len(names) == 1 else ())
        reading.add(record, source)
    return reading


def _said(turns: list[tuple[str, dict[str, Any]]], who: tuple[str, ...]) -> list[str]:
    return [text_of(turn, "value", where) for where, turn in turns if str(turn.get("from", "")).lower() in who]
