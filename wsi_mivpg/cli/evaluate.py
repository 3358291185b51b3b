"""``wsi-mivpg evaluate``: written reports against references, and against truth where there is one."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console

if TYPE_CHECKING:
    from wsi_mivpg.evaluation import Evaluation

EXAMPLES = (
    "Examples: wsi-mivpg evaluate out/report/reports.jsonl references.jsonl · "
    "wsi-mivpg evaluate predictions.csv out/model/data/rendered.jsonl --split test --json"
)


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="reports.jsonl, or any .jsonl, .csv or .json of texts.")],
    references: Annotated[
        Path, typer.Argument(help="The same kinds, one or more texts per case; a manifest may bring truth.")
    ],
    split: Annotated[
        str | None,
        typer.Option(help="Of a manifest as REFERENCES, score against the cases of this split only."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score texts against references of the same case ids, and facts where the references state the truth."""
    from wsi_mivpg.evaluation import evaluate as score
    from wsi_mivpg.evaluation import load_predictions, load_references, load_truths

    if split not in (None, "train", "val", "test"):
        raise typer.BadParameter(f"{split!r} is not train, val or test", param_hint="--split")
    scored = score(load_predictions(predictions), load_references(references, split), load_truths(references, split))
    console.result(asdict(scored), _as_text(scored), as_json=as_json)


def _as_text(scored: "Evaluation") -> str:
    rows: list[tuple[str, str]] = [("cases", str(scored.n_cases))]
    rows += [(name, f"{value:.4f}") for name, value in scored.scores.items()]
    if scored.fields is not None:
        facts = asdict(scored.fields)
        recall = facts.pop("finding_recall")
        rows += [(name, _plain(value)) for name, value in facts.items()]
        rows += [(f"recall of {finding}", _plain(value)) for finding, value in recall.items()]
    return console.table(("score", "value"), rows) + f"\n\n{scored.signature}"


def _plain(value: float | int | None) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
