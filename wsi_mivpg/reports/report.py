"""The Report object: a case's text with where it came from, and its JSON Lines file.

One line of the file is one report; reading checks every field, so a page can trust what it shows.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsi_mivpg import notebook_cards
from wsi_mivpg.atomic import write_text
from wsi_mivpg.errors import TextsError
from wsi_mivpg.reports.dicom_uids import DicomInstance

DISCLAIMER = (
    "Demonstration only. A computer program wrote this text. It is not a medical device, and no pathologist "
    "has checked it. Do not use it to make decisions about a patient."
)

NOT_ASSESSABLE = "[Not assessable with confidence.]"
"""What is shown in the place of a sentence whose confidence is too low."""
SCHEMA: Final = "wsi-mivpg-report/1"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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
    n_read: int | None = None
    """Tiles that the model read: all, unless a limit on the case's instances left some out."""
    contribution: float | None = None
    """Share (0..1) of the case's attention that lies on this slide."""
    dicom: DicomInstance | None = None
    """Of a DICOM slide whose bag states them."""
    stain: str | None = None
    """As the manifest names it."""


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
    method: str | None = None
    """How its tiles were weighed: "attention", "gradient" or "leave-out"; None: they were not."""
    top_tiles: tuple[TopTile, ...] = ()
    faithfulness: Faithfulness | None = None
    confidence: float | None = None
    """Calibrated probability (0..1) that the sentence is right."""
    assessable: bool = True
    """False: its confidence is below the model's threshold, and `Report.shown_text` does not show it."""
    alternatives: tuple[str, ...] = ()
    """What other samples of the same case say in its place."""
    unverified_numbers: tuple[tuple[int, int], ...] = ()
    """Numbers, grades, stages and sides that nothing vouches for: characters (start, end) of `Report.text`."""

    @property
    def shown_text(self) -> str:
        """The sentence, or what stands in its place where it is not assessable; `text` keeps what was written."""
        return self.text if self.assessable else NOT_ASSESSABLE


class FieldValue(_Frozen):
    """One field of a structured report, or of a question that was asked, and how sure the model is of it."""

    name: str
    value: str | int | float | bool | None
    probability: float
    """Of this value against all others that the schema allows, 0..1."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """Other values and their probabilities, most probable first."""
    confidence: float | None = None
    """Calibrated probability (0..1) that the value is right; None: the field was not calibrated, or a gate is shut."""
    assessable: bool = True
    """False: there is no value, or its confidence is below the model's threshold; the report's text leaves it out."""

    @property
    def certainty(self) -> float:
        """The confidence, or where there is none the model's own probability."""
        return self.probability if self.confidence is None else self.confidence

    @property
    def shown_value(self) -> str:
        """The value as people write it, or what stands in its place where it is not assessable; `value` keeps it."""
        if not self.assessable or self.value is None:
            return NOT_ASSESSABLE
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        return str(self.value)


class Gate(_Frozen):
    """One question about a report as a whole that decides whether it is to be shown as it is."""

    name: str
    """"image dependence", "distribution" or "agreement"."""
    value: float
    threshold: float | None
    """From calibration, below which the gate is shut; None: the model was not calibrated, and nothing is decided."""
    passed: bool | None
    explanation: str
    """One sentence for the reader, with the number."""


class Consensus(_Frozen):
    """Several texts that the model wrote of one case, of which the one that agrees most with the others was chosen."""

    samples: tuple[str, ...]
    chosen: int
    agreement: float
    """Mean field-aware similarity of the chosen text to the others, 0..1."""


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

    schema_version: Literal["wsi-mivpg-report/1"] = SCHEMA
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
    prompt: str | None = None
    """What the model was asked; None: its own prompt."""
    fields: tuple[FieldValue, ...] = ()
    """Of a structured report, in the order of its schema."""
    gates: tuple[Gate, ...] = ()
    consensus: Consensus | None = None
    forced: tuple[str, ...] = ()
    """How its bags differ from those that the model was trained on, where the user insisted."""
    settings_hash: str | None = None
    """Of the model, the bags and all that decides what is written: a case is not done again while it is the same."""
    warnings: tuple[str, ...] = ()
    disclaimer: str = DISCLAIMER
    mean_logprob: float | None = None

    @notebook_cards.safe
    def _repr_html_(self) -> str:
        from wsi_mivpg.reports.showing import report_card

        return report_card(self)

    def __repr__(self) -> str:
        return f"Report({self.case_id}: {self.text})"

    @property
    def supported(self) -> bool:
        """Whether no gate is shut: a report is not supported by its slides if one is."""
        return all(gate.passed is not False for gate in self.gates)

    @property
    def is_known_to_be_supported(self) -> bool | None:
        """`supported` where a gate decides anything; None where none does: not calibrated, or not asked."""
        return self.supported if any(gate.passed is not None for gate in self.gates) else None

    @property
    def shown_text(self) -> str:
        """The text with sentences that cannot be told with confidence replaced; `text` keeps what was written."""
        text = self.text
        for sentence in reversed(self.sentences):
            if not sentence.assessable:
                text = f"{text[: sentence.start]}{sentence.shown_text}{text[sentence.end :]}"
        return text

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
    return parse_report(_text(path), str(path))


def write_jsonl(path: Path, reports: Iterable[Report]) -> None:
    """Write one report per line, whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(path, "".join(report.model_dump_json() + "\n" for report in reports))


def read_jsonl(path: Path | str) -> list[Report]:
    """Read the reports that `write_jsonl` or a run wrote.

    Raises:
        TextsError: the file is missing or a line is not a report; the message names the line.
    """
    return list(iterate_jsonl(Path(path)))


def iterate_jsonl(path: Path) -> Iterator[Report]:
    """Read one report after the other, and hold none; raises what `read_jsonl` raises."""
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield parse_report(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise TextsError(f"cannot read a report from {path}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TextsError(f"cannot read a report from {path}: {error}") from error


def parse_report(text: str, where: str) -> Report:
    """Return the report in a line or file of JSON; `where` is what messages call it.

    Raises:
        TextsError: it is not a report; the message says which part.
    """
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "text"
        raise TextsError(
            f"{where} is not a report: {place}: {first['msg']}; write it again with `wsi-mivpg report`"
        ) from error
