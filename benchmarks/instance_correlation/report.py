"""Tables (Markdown) and plots (PNG) of the results that are there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsi_mivpg.atomic import write_text

from .baselines import BASELINES
from .results import load, of
from .statistics import Difference, outcomes, paired
from .systems import SYSTEMS
from .wording import FIELDS

CONTRASTS = (
    ("MIVPG", "Q-Former", "correlated self-attention"),
    ("full attention", "Q-Former", "correlation of all pairs"),
    ("MIVPG", "full attention", "low rank in place of all pairs"),
    ("MIVPG + grid PPEG", "MIVPG", "true positions"),
    ("MIVPG + sequence PPEG", "MIVPG", "positions by order"),
    ("MIVPG + grid PPEG", "MIVPG + sequence PPEG", "true positions in place of order"),
    ("MIVPG + grid PPEG", "Q-Former + grid PPEG", "correlation, with positions"),
    ("hierarchical MIVPG", "MIVPG", "slides pooled first"),
    ("Q-Former", "mean pooling", "queries in place of a mean"),
)
"""A minus B, and what that shows."""
_COLOURS = (
    "#4e79a7",
    "#f28e2b",
    "#e15759",
    "#76b7b2",
    "#59a14f",
    "#b07aa1",
    "#9c755f",
    "#bab0ac",
    "#edc948",
    "#d37295",
)


def write_report_files(folder: Path) -> list[Path]:
    """Write ``RESULTS.md`` and, where matplotlib is installed, the plots of each source; return their paths."""
    results = load(folder)
    if not results:
        return []
    written = []
    parts = ["# Results", "Written by `python -m benchmarks.instance_correlation --table`; how to read it: README.md."]
    for source in sorted({result["source"] for result in results}):
        sizes = sorted({r["n_train"] for r in results if r["source"] == source}, reverse=True)
        parts.append(f"## Tiles: {source}")
        for n_train in sizes:
            parts += [f"### {n_train} training cases", accuracy_table(results, source, n_train)]
            parts += [cost_table(results, source, n_train), difference_table(results, source, n_train)]
        written += plot(results, source, folder)
    path = folder / "RESULTS.md"
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return [path, *written]


def accuracy_table(results: Sequence[dict[str, Any]], source: str, n_train: int) -> str:
    """Mean accuracy of each field in percent, and its deviation over seeds."""
    rows = [["system", "seeds", *FIELDS, "BLEU-4", "CIDEr-D"]]
    for name in (*BASELINES, *SYSTEMS):
        found = of(results, source, name, n_train)
        if found:
            cells = [_mean_sd(100 * outcomes(found, field).mean(axis=1), 1) for field in FIELDS]
            captions = [_mean_sd([one["captions"][key] for one in found], 2) for key in ("bleu_4", "cider")]
            rows.append([name, str(len(found)), *cells, *captions])
    return _table(rows)


def cost_table(results: Sequence[dict[str, Any]], source: str, n_train: int) -> str:
    """Size and budget of each system."""
    rows = [
        [
            "system",
            "adapter parameters",
            "steps: alignment + all",
            "cases per step",
            "instances per case",
            "CPU s per training",
        ]
    ]
    for name in SYSTEMS:
        found = of(results, source, name, n_train)
        if found:
            budget = found[0]["budget"]
            seconds = np.mean([one["train_cpu_seconds"] for one in found])
            rows.append(
                [
                    name,
                    f"{found[0]['adapter_parameters']:,}",
                    f"{budget['alignment_steps']:,} + {budget['steps']:,}",
                    str(budget["batch_size"]),
                    f"{found[0]['mean_instances']:.0f}",
                    f"{seconds:.0f}",
                ]
            )
    return _table(rows) if len(rows) > 1 else ""


def difference_table(results: Sequence[dict[str, Any]], source: str, n_train: int) -> str:
    """Paired differences in percentage points; bold where the pooled interval leaves out zero."""
    rows = [["A − B", "shows", *FIELDS]]
    for first, second, shows in CONTRASTS:
        apart = differences(results, source, n_train, first, second)
        if apart:
            rows.append([f"{first} − {second}", shows, *map(_difference, apart)])
    return _table(rows) if len(rows) > 1 else ""


def differences(
    results: Sequence[dict[str, Any]], source: str, n_train: int, first: str, second: str
) -> list[Difference]:
    """Compare two systems field by field over the seeds that both have; empty where there are none."""
    a = {one["seed"]: one for one in of(results, source, first, n_train)}
    b = {one["seed"]: one for one in of(results, source, second, n_train)}
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return []
    ours, theirs = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    return [paired(outcomes(ours, field), outcomes(theirs, field)) for field in FIELDS]


def plot(results: Sequence[dict[str, Any]], source: str, folder: Path) -> list[Path]:
    """Draw a panel for each field: learning curves, or where there is one number of cases, a row for each system."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plots: matplotlib is not installed; pip install 'wsi-mivpg[bench]'")
        return []
    sizes = sorted({one["n_train"] for one in results if one["source"] == source})
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    panels = figure.subplots(2, 4, sharey=True).flat
    for panel, field in zip(panels, FIELDS, strict=False):
        constant = of(results, source, "most frequent value", sizes[-1])
        best = 100 * outcomes(constant, field).mean() if constant else None
        draw = _draw_curves if len(sizes) > 1 else _draw_rows
        draw(panel, results, source, sizes, field, best)
        panel.set_title(field)
        panel.grid(alpha=0.2)
    last = figure.axes[-1]
    last.axis("off")
    last.legend(*figure.axes[0].get_legend_handles_labels(), loc="center", fontsize=9, frameon=False)
    path = folder / f"{source}.png"
    figure.savefig(path, dpi=110)
    return [path]


def _draw_curves(
    panel: Any, results: Sequence[dict[str, Any]], source: str, sizes: list[int], field: str, constant: float | None
) -> None:
    """A line for each system through its means, a dot for each seed, a grey line for the best constant."""
    for colour, name in zip(_COLOURS, SYSTEMS, strict=True):
        known = [
            (size, 100 * outcomes(found, field).mean(axis=1))
            for size in sizes
            if (found := of(results, source, name, size))
        ]
        if known:
            means = [seeds.mean() for _, seeds in known]
            panel.plot([size for size, _ in known], means, "o-", color=colour, label=name, linewidth=1.5, ms=4)
            for size, seeds in known:
                panel.plot([size] * len(seeds), seeds, ".", color=colour, alpha=0.35, ms=4)
    if constant is not None:
        panel.axhline(constant, color="0.4", ls="--", lw=1, label="constant")
    panel.set(xscale="log", xlabel="training cases", ylabel="right, %", ylim=(0, 103))
    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.minorticks_off()


def _draw_rows(
    panel: Any, results: Sequence[dict[str, Any]], source: str, sizes: list[int], field: str, constant: float | None
) -> None:
    """A row for each system: its mean, and a dot for each seed."""
    names = [name for name in SYSTEMS if of(results, source, name, sizes[0])]
    for row, name in enumerate(names):
        seeds = 100 * outcomes(of(results, source, name, sizes[0]), field).mean(axis=1)
        panel.plot(seeds, [row] * len(seeds), ".", color="#4e79a7", alpha=0.6, label="a seed" if row == 0 else None)
        panel.plot(seeds.mean(), row, "|", color="#1b3a57", ms=14, mew=2, label="mean" if row == 0 else None)
    if constant is not None:
        panel.axvline(constant, color="0.4", ls="--", lw=1, label="constant")
    panel.set_yticks(range(len(names)), names)
    panel.set(xlabel="right, %", xlim=(0, 103), ylim=(len(names) - 0.5, -0.5))


def _mean_sd(values: Any, digits: int) -> str:
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ±{np.std(values, ddof=1):.{digits}f}"


def _difference(one: Difference) -> str:
    text = f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
    return f"**{text}**" if one.low > 0 or one.high < 0 else text


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(row) for row in rows]
    lines.insert(1, " | ".join("---" for _ in rows[0]))
    return "\n".join(f"| {line} |" for line in lines)
