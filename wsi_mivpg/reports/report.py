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
    warnings: tuple[str, ...] = ()
    disclaimer: str = DISCLAIMER
    mean_logprob: float | None = None


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
