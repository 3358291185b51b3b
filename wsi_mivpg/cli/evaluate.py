"""``wsi-mivpg evaluate``: written reports against references, beside baselines and controls, with intervals."""

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import check_splits

EXAMPLES = (
    "Examples: wsi-mivpg evaluate out/report/reports.jsonl references.jsonl --out out/evaluation · "
    "wsi-mivpg evaluate predictions.csv manifest.jsonl --split test --train manifest.jsonl --preset all · "
    "wsi-mivpg evaluate ours.json truth.json --compare theirs.json --control shuffled=shuffled.jsonl --json"
)
_FILES = ("evaluation.json", "evaluation.md", "evaluation.html")


class Missing(StrEnum):
    """What to do about ids without partner."""

    refuse = "refuse"
    empty = "empty"
    drop = "drop"


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="reports.jsonl, or any .jsonl, .csv, .parquet or .json of texts.")
    ],
    references: Annotated[
        Path,
        typer.Argument(help="The same kinds, one or more texts per case; a manifest may bring patients and truth."),
    ],
    split: Annotated[
        str | None,
        typer.Option(help="Of a manifest as REFERENCES, score against the cases of this split only."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json, .md and .html with the worst cases to read.")
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="Text metrics: words, coco, r2gen, reg2025, sacrebleu, rouge-score, embedding, or all; repeat."
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            help="Training reports, for baselines and copies; of a manifest the split train. Default: REFERENCES."
        ),
    ] = None,
    bags: Annotated[
        Path | None, typer.Option(help="Folder of bags CASE_ID.h5, for the nearest neighbour by mean feature.")
    ] = None,
    class_column: Annotated[
        str | None, typer.Option(help="Column (or key of the truth) with the true class; default: the organ named.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FILE", help="Another system's predictions, tested in pairs; repeat."),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Predictions of a control: shuffled, zeroed, text-only …; repeat."),
    ] = None,
    missing: Annotated[
        Missing,
        typer.Option(help="Ids without partner: refuse, score as empty texts, or drop; the last two exit with 3."),
    ] = Missing.refuse,
    vocabulary: Annotated[Path | None, typer.Option(help="TOML file over the clinical vocabulary.")] = None,
    embedding_model: Annotated[Path | None, typer.Option(help="Folder of a text encoder for similarities.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap samples of patients.")] = 1000,
    worst: Annotated[int, typer.Option(min=0, help="Worst cases on the page.")] = 50,
    seed: Annotated[int, typer.Option(help="Of bootstrap and permutations.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score texts against references of the same ids, beside what a model must beat, and say how sure that is."""
    from wsi_mivpg.evaluation.from_files import PAGE, Inputs, evaluate_files, write_study
    from wsi_mivpg.evaluation.presets import PRESETS
    from wsi_mivpg.evaluation.study import Settings
    from wsi_mivpg.evaluation.tables import as_json as as_data
    from wsi_mivpg.evaluation.tables import as_text

    check_splits(split)
    presets = tuple(PRESETS) if preset and "all" in preset else tuple(preset or ("words",))
    if unknown := [name for name in presets if name not in PRESETS]:
        raise typer.BadParameter(f"{unknown[0]!r} is not {', '.join(PRESETS)} or all", param_hint="--preset")
    if out is not None:
        console.writable_folder(out)
    inputs = Inputs(
        predictions,
        references,
        split,
        train,
        bags,
        class_column,
        tuple(_named(one, None) for one in compare or ()),
        tuple(_named(one, "--control") for one in control or ()),
        missing.value,
    )
    settings = Settings(presets, resamples, seed, worst, vocabulary, embedding_model)
    if {"reg2025", "embedding"} & set(presets):
        console.quieten_transformers()
    with console.progress("evaluate") as advance:
        study = evaluate_files(inputs, settings, advance)
    if out is not None:
        write_study(out, study)
    terminal = sys.stdout.isatty()
    text = as_text(study, width=shutil.get_terminal_size().columns if terminal else None, colour=terminal)
    console.result(as_data(study), text, as_json=as_json)
    if out is not None:
        console.note(f"{out / PAGE} has the worst cases to read")
    if study.join.missing or study.join.extra:
        raise typer.Exit(console.SOME_FAILED)


def _named(value: str, needed_by: str | None) -> tuple[str, Path]:
    """The name and the file of ``NAME=FILE``; without a name, where it may lack, the file's stem."""
    name, separator, path = value.partition("=")
    if separator and name and path:
        return name, Path(path)
    if needed_by:
        raise typer.BadParameter(f"{value!r} is not NAME=FILE", param_hint=needed_by)
    return Path(value).stem, Path(value)
