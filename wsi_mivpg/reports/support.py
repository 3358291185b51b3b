"""What a page says of the report's sentences: the tiles behind each one, and whether these do better than random.

Plain words and figures from a `Report`; no picture and no markup.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from wsi_mivpg.reports.report import Faithfulness, Report, Sentence, TopTile

METHODS = {
    "attention": "attention: how much the language model drew on each tile while it wrote, as a share of the case",
    "gradient": "gradient × input: how strongly the likelihood of the words depends on each tile, in nats",
    "leave-out": "leave-out: how much less likely the words become without a tile and its neighbours, in nats",
}
"""Name of a method -> what its weights say."""


@dataclass(frozen=True)
class Shown:
    """A tile as one map ranks it: its place among the page's tiles, from 0, and its weight with its unit."""

    tile: int
    weight: str
    unit: str


@dataclass(frozen=True)
class Support:
    """The whole report, or one sentence of it, with its map and tiles.

    Attributes:
        key: "report", or "sentence-N", N from 1: ids and data of the page.
        name: the same for people.
        text: of the sentence as it is shown; empty for the report.
        method: what the map's weights are; empty for a sentence whose tiles were not weighed.
        verdict: "better" or "random" where faithfulness was measured, else "unknown".
        tiles: most important first.
        figures: (what was measured, its value) of the faithfulness.
    """

    key: str
    name: str
    text: str
    method: str
    verdict: str
    tiles: tuple[Shown, ...]
    figures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PageTile:
    """A tile that the report or any sentence rests on, once for the page.

    Attributes:
        tile: its slide, corner and side.
        supports: key of each map that has it among its top tiles -> (its rank there from 1, its weight in words).
    """

    tile: TopTile
    supports: dict[str, tuple[int, str]] = field(default_factory=dict)


def supports(report: Report) -> tuple[list[Support], list[PageTile]]:
    """Return the report's and every sentence's support, and the tiles of them all, each once."""
    tiles: dict[tuple[str, int, int], PageTile] = {}
    places: dict[tuple[str, int, int], int] = {}

    def shown(key: str, top: tuple[TopTile, ...], method: str | None) -> tuple[Shown, ...]:
        result = []
        for rank, tile in enumerate(top, 1):
            place = (tile.slide_id, tile.x, tile.y)
            index = places.setdefault(place, len(places))
            weight, unit = weight_in_words(tile.weight, method)
            tiles.setdefault(place, PageTile(tile)).supports[key] = (rank, weight + unit)
            result.append(Shown(index, weight, unit))
        return tuple(result)

    method = map_method(report)
    whole = Support(
        key="report",
        name="Whole report",
        text="",
        method=METHODS.get(method, method),
        verdict="unknown",
        tiles=shown("report", report.top_tiles, method),
    )
    found = [whole]
    for number, sentence in enumerate(report.sentences, 1):
        key = f"sentence-{number}"
        found.append(
            Support(
                key=key,
                name=f"Sentence {number}",
                text=sentence.shown_text,
                method=METHODS.get(sentence.method, sentence.method) if sentence.method else "",
                verdict=_verdict(sentence),
                tiles=shown(key, sentence.top_tiles, sentence.method),
                figures=tuple(_figures(sentence.faithfulness)) if sentence.faithfulness else (),
            )
        )
    return found, list(tiles.values())


def map_method(report: Report) -> str:
    """Return how the whole report's map and tiles were weighed: like its sentences', and without any by attention."""
    return next((sentence.method for sentence in report.sentences if sentence.method), "attention")


def pieces(report: Report) -> Iterator[tuple[str, int | None]]:
    """Yield the report's text in order, white space around it left out: (piece, number of its sentence from 1)."""
    end = 0
    for number, sentence in enumerate(report.sentences, 1):
        between = report.text[end : sentence.start]
        yield (between if end else between.lstrip()), None
        yield sentence.text, number
        end = sentence.end
    rest = report.text[end:].rstrip()
    yield (rest if end else rest.lstrip()), None


def weight_in_words(weight: float, method: str | None) -> tuple[str, str]:
    """Return a tile's weight and its unit: attention is a share of the case, the others are nats."""
    if method == "attention":
        return f"{weight * 100:.{0 if weight >= 0.1 else 1}f}", "\u202f%"
    return (f"{weight:+.2g}", "\u202fnats") if method in METHODS else (f"{weight:.3g}", "")


def _verdict(sentence: Sentence) -> str:
    if sentence.faithfulness is None:
        return "unknown"
    return "better" if sentence.faithfulness.better_than_random else "random"


def _figures(measured: Faithfulness) -> Iterator[tuple[str, str]]:
    low, high = measured.deletion_interval
    yield (
        "Leaving out its first tiles, beyond random tiles",
        f"{measured.deletion:+.3g} nats (95\u202f% {low:+.3g} to {high:+.3g})",
    )
    low, high = measured.insertion_interval
    yield (
        "Its first tiles alone, beyond random tiles",
        f"{measured.insertion:+.3g} nats (95\u202f% {low:+.3g} to {high:+.3g})",
    )
    pairs = (
        (
            "tiles in the order of their features' lengths",
            measured.deletion_over_feature_norm,
            measured.insertion_over_feature_norm,
        ),
        ("tiles spread evenly over the slide", measured.deletion_over_uniform, measured.insertion_over_uniform),
    )
    for other, deletion, insertion in pairs:
        yield f"Both, beyond {other}", f"{deletion:+.3g} and {insertion:+.3g} nats"
    shares = ", ".join(f"{fraction * 100:g}" for fraction in measured.fractions)
    yield "Shares of tiles tried", f"{shares}\u202f%; {measured.random_orders} random orders"
