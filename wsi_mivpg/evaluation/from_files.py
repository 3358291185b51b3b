"""A whole evaluation from files: reads them, joins ids, adds baselines and controls, and writes the result."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsi_mivpg.atomic import write_text
from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.controls import System, baselines, read_system
from wsi_mivpg.evaluation.joining import Mismatch, Pairs, join
from wsi_mivpg.evaluation.page import evaluation_page
from wsi_mivpg.evaluation.readers import Gathered, gather, truths_of
from wsi_mivpg.evaluation.study import Settings, Study, run_study
from wsi_mivpg.evaluation.tables import as_json, as_markdown

PAGE = "evaluation.html"


@dataclass(frozen=True)
class Inputs:
    """The files of an evaluation.

    Attributes:
        predictions, references: of the same ids; references may be a manifest.
        split: of the references; None takes all.
        train: training reports; None takes the split train of the references, if they have one and another is
            scored.
        bags: folder of bags called by case id.
        class_column: with the true class; None takes the organ that a report names.
        compared, controls: (name, predictions) of other systems and of controls.
        missing: what to do about ids without partner.
    """

    predictions: Path
    references: Path
    split: str | None = None
    train: Path | None = None
    bags: Path | None = None
    class_column: str | None = None
    compared: tuple[tuple[str, Path], ...] = ()
    controls: tuple[tuple[str, Path], ...] = ()
    missing: Mismatch = "refuse"


def evaluate_files(inputs: Inputs, settings: Settings, advance: Callable[[int, int, str], None] | None = None) -> Study:
    """Evaluate the predictions of a file.

    Raises:
        TextsError: a file is missing, malformed or empty, ids do not match, or two systems have one name.
        BagError: a bag for the nearest neighbour cannot be read.
    """
    references = gather(inputs.references, inputs.split)
    pairs, report = join(gather(inputs.predictions), references, inputs.missing)
    train = _training(inputs)
    beside = baselines(pairs, references, train, inputs.class_column, inputs.bags)
    model = System("model", "model", pairs.predictions)
    others: list[System] = []
    notes: list[str] = []
    for kind, files in (("compared", inputs.compared), ("control", inputs.controls)):
        for name, path in files:
            system, said = read_system(name, kind, gather(path), pairs, inputs.missing)
            others.append(system)
            notes += said
    others += beside.systems
    names = [system.name for system in (model, *others)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TextsError(f"two systems are called {twice[0]!r}; name them apart as NAME=FILE")
    truths = truths_of(references)
    return run_study(
        model,
        others,
        pairs,
        report,
        settings,
        patients=_patients(references, pairs),
        truths=None if truths is None else [truths[case_id] for case_id in pairs.case_ids],
        train_texts=None if train is None else [text for texts in train.texts.values() for text in texts],
        absent=beside.absent,
        notes=[*notes, *beside.notes],
        advance=advance,
    )


def write_study(folder: Path, study: Study) -> list[Path]:
    """Write evaluation.json, evaluation.md and evaluation.html, each whole or not at all; return their paths.

    Raises:
        OutputError: the folder cannot be written.
    """
    contents = {
        "evaluation.json": json.dumps(as_json(study), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "evaluation.md": as_markdown(study),
        PAGE: evaluation_page(study),
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def _training(inputs: Inputs) -> Gathered | None:
    if inputs.train is not None:
        every = gather(inputs.train)
        has_split = any(entry.record.get("split") for entry in every.entries.values())
        return gather(inputs.train, "train") if has_split else every
    if inputs.split in ("val", "test"):
        try:
            return gather(inputs.references, "train")
        except TextsError:  # it has the scored split and no other
            return None
    return None


def _patients(references: Gathered, pairs: Pairs) -> list[str] | None:
    """The patient of each case; None where no line names one."""
    found = [references.entries[case_id].patient_id for case_id in pairs.case_ids]
    if not any(found):
        return None
    return [patient or case_id for patient, case_id in zip(found, pairs.case_ids, strict=True)]
