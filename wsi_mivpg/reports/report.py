"""The Report object: a case's text with where it came from, and its JSON Lines file.

One line of the file is one report; reading checks every field, so a page can trust what it shows.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsi_mivpg import notebook_cards
from wsi_mivpg.atomic import write_text
from wsi_mivpg.errors import TextsError

DISCLAIMER = (
    "Demonstration only. A computer program wrote this text. It is not a medical device, and no pathologist "
    "has checked it. Do not use it to make decisions about a patient."
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlideSummary(_Frozen):
    """One slide of a case. `mpp` is the file's own (level 0); `target_mpp` is what the tiles were read at."""

    slide_id: str
    n_tiles: int
    mpp: float | None = None
    mpp_source: str | None = None
    path: str | None = None
    """The slide's file or address, where it was read."""
    bag: str | None = None
    """The bag's file; relative to the folder of the report where it lies below that."""
    bag_sha256: str | None = None
    """Of the bag's file, as it was read."""
    target_mpp: float | None = None
    tile_px: int | None = None
    reader: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    top_share: float | None = None
    """Share (0..1) of this slide's attention that lies on its most attended tenth of tiles."""


class TopTile(_Frozen):
    """A tile that the model attended to most: level-0 corner and side in px, weight as share of the case."""

    slide_id: str
    x: int
    y: int
    size_l0_px: float
    weight: float


class Faithfulness(_Frozen):
    """Whether a sentence's map shows what the sentence rests on: the model is read again with tiles left out.

    Areas are means over the shares of tiles in `fractions`, in nats of the sentence's log-likelihood, and positive
    where the map is better than another order of the tiles.
    """

    deletion: float
    """Log-likelihood lost by leaving out the map's first tiles, beyond what random tiles of the same number cost."""
    deletion_interval: tuple[float, float]
    """95 % interval over the random orders."""
    insertion: float
    """Log-likelihood of the map's first tiles alone, beyond that of random tiles of the same number."""
    insertion_interval: tuple[float, float]
    deletion_over_feature_norm: float
    """Likewise, against tiles in the order of their features' lengths."""
    insertion_over_feature_norm: float
    deletion_over_uniform: float
    """Likewise, against tiles spread evenly over the slide."""
    insertion_over_uniform: float
    fractions: tuple[float, ...]
    random_orders: int

    @property
    def better_than_random(self) -> bool:
        """Whether both intervals leave out zero, on the good side."""
        return self.deletion_interval[0] > 0 and self.insertion_interval[0] > 0


class Sentence(_Frozen):
    """A sentence of the report and the tiles that support it: characters `start` to `end` of `Report.text`."""

    text: str
    start: int
    end: int
    logprob: float
    """Sum over its tokens, natural logarithm."""
    method: str
    """How its tiles were weighed: "attention", "gradient" or "leave-out"."""
    top_tiles: tuple[TopTile, ...] = ()
    faithfulness: Faithfulness | None = None


class Provenance(_Frozen):
    """How a report was made. `created` is an ISO 8601 time that the caller passes in."""

    created: str
    encoder: str | None = None
    encoder_weights_sha256: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: float | None = None


class Report(_Frozen):
    """What the model wrote about one case, on what it stands, and what to beware of.

    `mean_logprob` is the mean log-probability per token that the model gave its own text (natural log).
    """

    case_id: str
    text: str
    provenance: Provenance
    model: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    slides: tuple[SlideSummary, ...] = ()
    top_tiles: tuple[TopTile, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    token_ids: tuple[int, ...] = ()
    """What the language model wrote, the end token included if it was: the text alone may be cut into others."""
    evidence: str | None = None
    """The HDF5 file with a weight for each sentence and tile; relative to the folder of the report."""
    warnings: tuple[str, ...] = ()
    disclaimer: str = DISCLAIMER
    mean_logprob: float | None = None

    @notebook_cards.safe
    def _repr_html_(self) -> str:
        from wsi_mivpg.reports.showing import report_card

        return report_card(self)

    def __repr__(self) -> str:
        return f"Report({self.case_id}: {self.text})"

    @model_validator(mode="after")
    def _sentences_are_of_the_text(self) -> Self:
        end = 0
        for number, sentence in enumerate(self.sentences, 1):
            if sentence.start < end or not sentence.text or self.text[sentence.start : sentence.end] != sentence.text:
                raise ValueError(f"sentence {number} is not characters {sentence.start} to {sentence.end} of the text")
            end = sentence.end
        return self


def write_json(path: Path, report: Report) -> None:
    """Write one report as JSON, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(path, report.model_dump_json(indent=1) + "\n")


def read_json(path: Path) -> Report:
    """Read the report that `write_json` wrote.

    Raises:
        TextsError: the file is missing or is not a report.
    """
    return _parsed(_text(path), str(path))


def write_jsonl(path: Path, reports: Iterable[Report]) -> None:
    """Write one report per line, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(path, "".join(report.model_dump_json() + "\n" for report in reports))


def read_jsonl(path: Path) -> list[Report]:
    """Read the reports that `write_jsonl` wrote.

    Raises:
        TextsError: the file is missing, or a line is not a report; the message names the line.
    """
    lines = _text(path).split("\n")
    return [_parsed(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TextsError(f"cannot read a report from {path}: {error}") from error


def _parsed(text: str, where: str) -> Report:
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "text"
        raise TextsError(
            f"{where} is not a report: {place}: {first['msg']}; write it again with `wsi-mivpg report`"
        ) from error
