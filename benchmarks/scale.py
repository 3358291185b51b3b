"""What extraction costs from one slide to a million: tables for docs/scale.md from the figures in scale.toml.

    python benchmarks/scale.py                          # print the tables
    python benchmarks/scale.py --figures mine.toml      # with your own figures
    python benchmarks/scale.py --write docs/scale.md    # put them where the page has its marks

The model is one line: a run is as fast as its slowest part, which is the GPU, the cores that read, or the network.
It knows no queues, no failures and no start-up.
"""

import argparse
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_mivpg.encoders.registry import REGISTRY

FIGURES = Path(__file__).with_name("scale.toml")
TILE_PX, MPP = 224, 0.5
BYTES_BESIDE_FEATURES = 16 + 4 + 8
"""A tile's coords (2 int64), tissue_fraction (float32) and grid (2 int32)."""
STEPS = (100, 10_000, 100_000, 1_000_000)
DAY_S = 86_400
EXAMPLE = "uni2-h"


@dataclass(frozen=True)
class Slide:
    """A kind of slide: its tissue, and the size of its file."""

    name: str
    tissue_mm2: float
    file_gb: float

    @property
    def n_tiles(self) -> float:
        """Tiles of 224 px at 0.5 µm/px that the tissue fills."""
        return self.tissue_mm2 / (TILE_PX * MPP / 1000) ** 2


@dataclass(frozen=True)
class Figures:
    """The file of figures: its rows, their values by name, and what belongs to slides, GPUs and encoders."""

    rows: Sequence[dict[str, str | float]]
    of: dict[str, float]
    slides: dict[str, Slide]
    peak_tflops: dict[str, float]
    gigaflops: dict[str, float]


@dataclass(frozen=True)
class Rate:
    """Tiles a second of one GPU with its cores and its share of the network, and what keeps it from more."""

    tiles_s: float
    bound_by: str


def main() -> None:
    """Print all tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    made = tables(read_figures(arguments.figures))
    if arguments.write:
        arguments.write.write_text(filled(arguments.write.read_text(encoding="utf-8"), made), encoding="utf-8")
    else:
        print("\n\n".join(f"{name}\n\n{table}" for name, table in made.items()))


def read_figures(path: Path) -> Figures:
    """Return the figures of a TOML file such as scale.toml."""
    read = tomllib.loads(path.read_text(encoding="utf-8"))
    values = {row["name"]: float(row["value"]) for row in read["figure"]}
    for row in read["figure"]:
        values |= {f"{row['name']}.{end}": float(row[end]) for end in ("low", "high") if end in row}
    slides = {row["name"]: Slide(**row) for row in read["slide"]}
    return Figures(read["figure"], values, slides, read["gpu_peak_tflops"], read["gigaflops"])


def rate(figures: Figures, encoder: str, gpu: str, slide: Slide, end: str = "", reading: str = "") -> Rate:
    """Return the rate of one GPU; `end` "low" or "high" takes that end of what is assumed, `reading` may be "_fast"."""
    of = figures.of
    is_convolution = encoder in ("efficientnet-lite0", "resnet50-clam")
    share = of[f"gpu_share_{'convolution' if is_convolution else 'transformer'}{'.' * bool(end)}{end}"]
    gb_per_tile = of["read_share_of_file"] * slide.file_gb / slide.n_tiles
    parts = {
        "GPU": figures.peak_tflops[gpu] * 1000 * share / figures.gigaflops[encoder],
        "reading": of["cores_per_gpu"] * of[f"read_tiles_per_core_s{reading}"],
        "network": of["network_gb_s_per_gpu"] / gb_per_tile,
    }
    slowest = min(parts, key=parts.__getitem__)
    return Rate(parts[slowest] * of["engine_share"], slowest)


def bag_gb(encoder: str, slide: Slide) -> float:
    """Return the size of a slide's bag."""
    return slide.n_tiles * (2 * REGISTRY[encoder].dim + BYTES_BESIDE_FEATURES) / 1e9


def tables(figures: Figures) -> dict[str, str]:
    """Return name -> Markdown table, as docs/scale.md has them."""
    return {
        "figures": _figures_table(figures),
        "encoders": _encoders_table(figures),
        "storage": _storage_table(figures),
        "steps": _steps_table(figures),
    }


def filled(page: str, made: dict[str, str]) -> str:
    """Return `page` with each table between its marks; a mark without a table, or the reverse, is an error."""
    marks = re.findall(r"<!-- table: (\w+) -->", page)
    if sorted(marks) != sorted(made):
        raise ValueError(f"the page has marks for {marks}, and there are tables {list(made)}")
    for name, table in made.items():
        between = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        page = re.sub(between, lambda found, text=table: f"{found[1]}\n{text}\n\n{found[2]}", page, flags=re.DOTALL)
    return page


def _figures_table(figures: Figures) -> str:
    rows = []
    for row in figures.rows:
        between = f" ({row['low']:g}–{row['high']:g})" if "low" in row else ""
        rows.append((f"`{row['name']}`", f"{row['value']:g}{between} {row['unit']}", row["origin"], row["note"]))
    return _markdown(("figure", "value", "origin", "from"), rows)


def _encoders_table(figures: Figures) -> str:
    slide = figures.slides["typical"]
    rows = []
    for encoder, gigaflops in figures.gigaflops.items():
        row = [f"`{encoder}`", f"{gigaflops:g}"]
        for gpu in figures.peak_tflops:
            low, high = (rate(figures, encoder, gpu, slide, end) for end in ("low", "high"))
            between = [_round(one.tiles_s * DAY_S / slide.n_tiles) for one in (low, high)]
            row.append(between[0] if between[0] == between[1] else "–".join(between))
        exact, fast = (rate(figures, encoder, "H100", slide, reading=reading) for reading in ("", "_fast"))
        rows.append((*row, exact.bound_by, fast.bound_by))
    gpus = [f"{gpu}, slides/day" for gpu in figures.peak_tflops]
    return _markdown(("encoder", "GFLOP/tile", *gpus, "H100 waits for", "with `--fast-decode`"), rows)


def _storage_table(figures: Figures) -> str:
    rows = []
    for slide in figures.slides.values():
        sizes = [f"{_round(10_000 * bag_gb(name, slide))} GB" for name in ("phikon", "uni", "uni2-h", "virchow2")]
        rows.append((slide.name, _round(slide.n_tiles), f"{10_000 * slide.file_gb / 1000:g} TB", *sizes))
    dims = [f"bags of {REGISTRY[name].dim} numbers" for name in ("phikon", "uni", "uni2-h", "virchow2")]
    return _markdown(("10,000 slides of kind", "tiles a slide", "slides", *dims), rows)


def _steps_table(figures: Figures) -> str:
    slide, of = figures.slides["typical"], figures.of
    one = rate(figures, EXAMPLE, "H100", slide)
    gpu_days = {n: n * slide.n_tiles / one.tiles_s / DAY_S for n in STEPS}
    core_days = {n: n * slide.n_tiles / of["cpu_encode_tiles_per_core_s"] / DAY_S for n in STEPS}
    gpus = {n: max(1, round(gpu_days[n] / 7)) for n in STEPS}
    gb_s = one.tiles_s * of["read_share_of_file"] * slide.file_gb / slide.n_tiles
    status_s = of["status_s_per_slide"]
    lines: dict[str, list[str]] = {
        f"H100 days, `{EXAMPLE}`": [_round(gpu_days[n]) for n in STEPS],
        "GPUs for a week of it, or one": [f"{gpus[n]:,}" for n in STEPS],
        "… which read together, GB/s": [_round(gpus[n] * gb_s) for n in STEPS],
        "core-days, `efficientnet-lite0` without a GPU": [_round(core_days[n]) for n in STEPS],
        "slides": [_bytes(n * slide.file_gb) for n in STEPS],
        f"bags, `{EXAMPLE}`": [_bytes(n * bag_gb(EXAMPLE, slide)) for n in STEPS],
        "all bags read once at 1 GB/s (an epoch), hours": [_round(n * bag_gb(EXAMPLE, slide) / 3600) for n in STEPS],
        "GPU-days of writing reports": [
            _round(n * of["tokens_per_report"] / of["tokens_per_gpu_s"] / DAY_S) for n in STEPS
        ],
        "pages of cases": [_bytes(n * of["page_mb"] / 1000) for n in STEPS],
        "one write of status.csv, all in one folder, s": [_round(n * status_s) for n in STEPS],
    }
    rows = [(name, *values) for name, values in lines.items()]
    return _markdown(("typical slides", *(f"{n:,}" for n in STEPS)), rows)


def _round(value: float) -> str:
    """Return two significant digits: the figures are no better."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{float(f'{value:.2g}'):.4f}".rstrip("0").rstrip(".")


def _bytes(size_gb: float) -> str:
    for unit, factor in (("PB", 1e6), ("TB", 1e3)):
        if size_gb >= factor:
            return f"{size_gb / factor:.2g} {unit}" if size_gb < 100 * factor else f"{size_gb / factor:,.0f} {unit}"
    return f"{_round(size_gb)} GB"


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    main()
