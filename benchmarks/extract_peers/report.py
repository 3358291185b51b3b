"""Runs to medians, medians to Markdown tables, and what they say of the goals."""

import statistics
from collections.abc import Callable

from extract_peers.tables import NAMES, PEERS, Row, Table

Figures = dict[str, float]
_HEAD = (
    "",
    "tiles",
    "tiles/s",
    "mm²/s",
    "wall s",
    "CPU s",
    "tiles/s after start-up",
    "tiles/s, encode phase",
    "in the encoder",
    "peak MB",
    "beyond the model",
)


def median(runs: list[Figures]) -> Figures:
    """Return the median of each figure, with tiles/s: `tiles_per_s` of the whole process, `working_per_s` once it has
    loaded everything, `encoding_per_s` from the first batch in to the last one out. `half_range` is that of the first,
    as a share of the median.
    """
    divisors = {"tiles_per_s": "wall_s", "working_per_s": "work_s", "encoding_per_s": "encode_s"}
    rates = [
        one | {rate: one["tiles"] / one[seconds] for rate, seconds in divisors.items() if one.get(seconds)}
        for one in runs
    ]
    found = {name: statistics.median(one[name] for one in rates) for name in rates[0]}
    whole = [one["tiles_per_s"] for one in rates]
    return found | {"half_range": (max(whole) - min(whole)) / 2 / found["tiles_per_s"]}


def markdown(table: Table, medians: dict[str, Figures], reasons: dict[str, str]) -> str:
    """Return a table, and below it what was left out and why."""
    lines = ["", f"### {table.title}", "", f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    left_out = []
    for row in table.rows:
        name = f"{NAMES[row.tool]}, {row.label}" if row.label else NAMES[row.tool]
        if row.key in medians:
            lines.append(f"| {name} | {' | '.join(_cells(row, medians[row.key]))} |")
        else:
            left_out.append(f"- {name}: {reasons.get(row.key, 'not run')}")
    return "\n".join([*lines, *(["", "Left out:", "", *left_out] if left_out else [])])


def _cells(row: Row, found: Figures) -> list[str]:
    """Return a row's figures; the encoder alone has no pipeline around it."""
    working, encoding = (f"{found[rate]:.1f}" if rate in found else "–" for rate in ("working_per_s", "encoding_per_s"))
    memory = [f"{found['peak_mb']:.0f}", f"{_beyond(found):.0f}" if "loaded_mb" in found else "–"]
    if row.tool == "encoder":
        return ["–"] * 6 + [encoding, "–", *memory]
    rate = found["tiles_per_s"]
    whole = [f"{found['tiles']:.0f}", f"{rate:.1f} ± {found['half_range']:.0%}", f"{rate * row.tile_um**2 / 1e6:.2f}"]
    inside = f"{found['busy_s'] / found['wall_s']:.0%}" if "busy_s" in found else "–"
    return [*whole, f"{found['wall_s']:.1f}", f"{found['cpu_s']:.1f}", working, encoding, inside, *memory]


def _beyond(found: Figures) -> float:
    """Megabytes at the peak more than when the model had been loaded."""
    return found["peak_mb"] - found["loaded_mb"]


def goals(chosen: dict[str, Table], medians: dict[str, Figures]) -> str:
    """Return what the run says of each goal that it measured both sides of."""

    def best(table: str, wanted: Callable[[Row], bool], figure: str) -> float | None:
        rows = chosen[table].rows if table in chosen else ()
        found = [medians[row.key][figure] for row in rows if wanted(row) and figure in medians.get(row.key, {})]
        return max(found, default=None)

    def is_peer(row: Row) -> bool:
        return row.tool in PEERS

    def ours(label: str) -> Callable[[Row], bool]:
        return lambda row: row.tool == "ours" and row.label == label

    alone_fp32 = best("encoder", lambda row: row.label.startswith("ours, fp32"), "encoding_per_s")
    pairs = {
        "same fp32 encoder, encode phase against the best of the encoder alone, at least 0.90": (
            best("own", ours("fp32"), "encoding_per_s"),
            alone_fp32,
        ),
        "own settings, ours on its defaults against the best peer, at least 3": (
            best("own", ours("defaults"), "tiles_per_s"),
            best("own", is_peer, "tiles_per_s"),
        ),
        "same settings for all, ours against the best peer": (
            best("same", lambda row: row.tool == "ours", "tiles_per_s"),
            best("same", is_peer, "tiles_per_s"),
        ),
        "free encoder, ours against the best peer, at least 6": (
            best("free", ours(""), "tiles_per_s"),
            best("free", is_peer, "tiles_per_s"),
        ),
        "the same after start-up": (
            best("free", ours(""), "working_per_s"),
            best("free", is_peer, "working_per_s"),
        ),
        "accelerator, encode phase against the best of the encoder alone, at least 0.95": (
            best("cuda", lambda row: row.tool == "ours", "encoding_per_s"),
            best("cuda", lambda row: row.tool == "encoder", "encoding_per_s"),
        ),
    }
    lines = [
        f"- {goal}: {mine:.1f} / {theirs:.1f} = **{mine / theirs:.2f}**"
        for goal, (mine, theirs) in pairs.items()
        if mine and theirs
    ]
    rows = [row for table in chosen.values() for row in table.rows if row.tool == "ours" and row.key in medians]
    beyond = [_beyond(medians[row.key]) for row in rows if "loaded_mb" in medians[row.key]]
    if beyond:
        lines.append(f"- ours, peak memory beyond the model, at most 1000 MB: **{max(beyond):.0f}**")
    return "\n".join(["", "### Goals", "", *lines]) if lines else ""
