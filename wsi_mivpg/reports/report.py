"""The Report object: a case's text with where it came from, and its JSON Lines file.

One line of the file is one report; reading checks every field, so a page can trust what it shows.
"""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    """The bag's file."""
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
    """The HDF5 file with a weight for each sentence and tile."""
    warnings: tuple[str, ...] = ()
    disclaimer: str = DISCLAIMER
    mean_logprob: float | None = None

    def __repr__(self) -> str:
        return f"Report({self.case_id}: {self.text})"


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
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TextsError(f"cannot read reports from {path}: {error}") from error
    return [_parsed(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def _parsed(line: str, path: Path, number: int) -> Report:
    try:
        return Report.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "line"
        raise TextsError(
            f"{path}, line {number} is not a report: {where}: {first['msg']}; write it again with `wsi-mivpg report`"
        ) from error
