"""An evaluation as a rich table, as Markdown and as JSON; the same figures in each."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from wsi_mivpg.evaluation.statistics import Difference
from wsi_mivpg.evaluation.study import MAIN_METRICS, Comparison, Score, Study
from wsi_mivpg.evaluation.text_files import listed

_NEITHER = "neither the system's texts nor the references state it"
_NOT_BOTH = "no text of the system states it where its reference does"
_GROUPS = (
    ("Facts against truth", "truth."),
    ("Clinical fields", "field."),
    ("Clinical errors", ("number_error.", "negation_flips", "over_specific")),
    (
        "Outputs",
        ("exact_match", "verbatim_in_train", "degenerate_repeats", "empty", "length_mean", "length_ratio"),
    ),
)


def as_json(study: Study) -> dict[str, Any]:
    """Return the evaluation as JSON-like data, without the worst cases; an undefined figure is null with its reason."""
    record = asdict(study)
    record.pop("worst")
    record["settings"] |= {
        key: value and str(value) for key, value in record["settings"].items() if key.endswith(("vocabulary", "model"))
    }
    json.dumps(record, allow_nan=False)  # a NaN here is a bug, not a figure
    return record


def metric_groups(study: Study) -> list[tuple[str, list[str]]]:
    """Return the metrics' names under headings, in reading order."""
    names = list(dict.fromkeys(name for system in study.systems for name in system.scores))
    grouped = [(title, [name for name in names if name.startswith(prefix)]) for title, prefix in _GROUPS]
    known = {name for _, members in grouped for name in members}
    return [one for one in [("Text", [name for name in names if name not in known]), *grouped] if one[1]]


def cell(score: Score | None) -> str:
    """Return a figure with its interval, or a dash."""
    if score is None or score.value is None:
        return "–"
    within = "" if score.low is None or score.high is None else f" [{number(score.low)}, {number(score.high)}]"
    return f"{number(score.value)}{within}"


def number(value: float) -> str:
    """Return a figure with three digits that mean something."""
    digits = 3 if abs(value) < 10 else 1
    return f"{value:.{digits}f}"


def reasons(study: Study) -> dict[str, str]:
    """Return why figures or their intervals are undefined, and why metrics or systems are absent."""
    found: dict[str, str] = {}
    every = dict.fromkeys(name for system in study.systems for name in system.scores)
    for system in study.systems:
        for name in every:
            score = system.scores.get(name)
            if score is None:
                if name not in study.absent:
                    found[f"{name} ({system.name})"] = _NOT_BOTH if name.startswith("number_error.") else _NEITHER
            elif score.reason and (score.value is None or score.low is None):
                found[f"{name} ({system.name})"] = score.reason
    return {**_merged(found), **{f"{name}: absent": why for name, why in study.absent.items()}}


def headline(study: Study) -> str:
    """Return how many cases and patients, and how intervals were made."""
    settings = study.settings
    return (
        f"{study.n_cases} case{'' if study.n_cases == 1 else 's'} of {study.n_patients} "
        f"patient{'' if study.n_patients == 1 else 's'}. Brackets: 95 % interval over {settings.n_resamples} "
        f"bootstrap samples of patients (percentiles, seed {settings.seed})."
    )


def difference_rows(study: Study) -> list[tuple[Comparison, str, Difference]]:
    """Return the differences of the main metrics to every other system."""
    return [
        (comparison, name, comparison.differences[name])
        for comparison in study.comparisons
        for name in MAIN_METRICS
        if name in comparison.differences
    ]


def verdict(difference: Difference, other: str) -> str:
    """Return in words which system is better, as far as the interval tells."""
    if difference.value is None:
        return f"undefined: {difference.interval.reason}"
    if difference.favours is None:
        return "not told apart"
    return "model better" if difference.favours == "A" else f"{other} better"


def as_markdown(study: Study) -> str:
    """Return the evaluation as a Markdown page."""
    names = [system.name for system in study.systems]
    lines = ["# Evaluation", "", headline(study), ""]
    lines += [f"- {note}" for note in study.notes] + ([""] if study.notes else [])
    for title, members in metric_groups(study):
        lines += [f"## {title}", "", _row(["metric", *names]), _row(["---"] * (len(names) + 1))]
        lines += [_row([name, *(cell(system.scores.get(name)) for system in study.systems)]) for name in members] + [""]
    lines += ["## Texts", "", _row(["system", "different texts", *study.systems[0].lengths]), _row(["---"] * 8)]
    lines += [_row([one.name, f"{one.distinct:.3f}", *map(number, one.lengths.values())]) for one in study.systems]
    lines += ["", "Lengths in tokens (words and numbers).", ""]
    if study.comparisons:
        header = ["model minus", "metric", "difference", "p", "p (Holm)", "same texts", ""]
        lines += ["## Differences", "", _row(header), _row(["---"] * len(header))]
        lines += [_row(_difference_cells(*row)) for row in difference_rows(study)]
        lines += [
            "",
            "p: permutation of whole patients between the two systems; Holm over the metrics shown here, by system.",
            "",
        ]
    lines += ["## Signatures", "", *(f"- `{name}`: `{one}`" for name, one in study.signatures.items()), ""]
    if found := reasons(study):
        lines += ["## Not there, and why", "", *(f"- {name}: {why}" for name, why in found.items()), ""]
    return "\n".join(lines)


def as_text(study: Study, *, width: int | None = None, colour: bool = False) -> str:
    """Return the evaluation as rich tables.

    Args:
        study: what to show.
        width: of the terminal in characters; None makes the tables as wide as they are.
        colour: with terminal codes.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    console = Console(file=stream, width=width or 10_000, force_terminal=colour, highlight=False)
    console.print(Text(headline(study)))
    for note in study.notes:
        console.print(Text(f"! {note}", style="yellow"))
    table = Table("metric", *(escape(system.name) for system in study.systems))
    for title, members in metric_groups(study):
        table.add_section()
        table.add_row(Text(title, style="bold"))
        for name in members:
            table.add_row(Text(name), *(Text(cell(system.scores.get(name))) for system in study.systems))
    console.print(table)
    if study.comparisons:
        table = Table("model minus", "metric", "difference", "p", "p (Holm)", "same texts", "")
        for row in difference_rows(study):
            table.add_row(*(Text(one) for one in _difference_cells(*row)))
        console.print(table)
    signatures: dict[str, list[str]] = {}
    for name, signature in study.signatures.items():
        signatures.setdefault(signature, []).append(name)
    console.print(Text("Signatures", style="bold"))
    for signature, members in signatures.items():
        shown = members[0] if len(members) == 1 else f"{members[0]} and {len(members) - 1} more"
        console.print(Text(f"  {shown}: {signature}"))
    for name, why in reasons(study).items():
        console.print(Text(f"  {name}: {why}", style="dim"))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _difference_cells(comparison: Comparison, name: str, one: Difference) -> list[str]:
    shown = Score(one.value, one.interval.low, one.interval.high)
    p = ["–" if value is None or math.isnan(value) else f"{value:.4f}" for value in (one.p, one.p_holm)]
    image = " (image dependence)" if comparison.is_image_control else ""
    return [
        f"{comparison.system}{image}",
        name,
        cell(shown),
        *p,
        f"{comparison.unchanged:.3f}",
        verdict(one, comparison.system),
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _merged(found: Mapping[str, str]) -> dict[str, str]:
    """The same reason once for all its metrics."""
    by_reason: dict[str, list[str]] = {}
    for name, why in found.items():
        by_reason.setdefault(why, []).append(name)
    return {listed(names): why for why, names in by_reason.items()}
