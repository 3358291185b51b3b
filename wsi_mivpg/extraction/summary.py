"""What a run tells its caller: progress, results, failures, and where the time went.

Data only.
"""

from dataclasses import dataclass, field
from pathlib import Path

from wsi_mivpg.extraction.lanes import Lanes
from wsi_mivpg.extraction.ledger import State
from wsi_mivpg.extraction.meter import Meter


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of `total` tiles of one slide, and slide `slide_number` of `n_slides` (from 1).

    Where several processes share a run, `slide_id` is "" and slides are counted in place of tiles.
    """

    slide_id: str
    done: int
    total: int
    slide_number: int
    n_slides: int


@dataclass(frozen=True)
class ExtractionResult:
    """One slide's bags, one for each encoder.

    `state` is "done", or "kept" where bags with the same settings were already there. `n_unreadable` tiles were planned
    but could not be decoded; the bags name them.
    """

    slide_id: str
    bag_paths: tuple[Path, ...]
    n_tiles: int
    seconds: float
    state: State
    n_unreadable: int

    @property
    def bag_path(self) -> Path:
        """The first encoder's bag."""
        return self.bag_paths[0]

    @property
    def skipped(self) -> bool:
        """Whether the bags were already there."""
        return self.state == "kept"


@dataclass(frozen=True)
class Failure:
    """One slide that could not be extracted, and why."""

    slide: str
    error: str


@dataclass(frozen=True)
class Throughput:
    """What a run's time went to.

    Attributes:
        n_tiles: tiles encoded.
        wall_s: from the first slide's opening to the last bag's last byte.
        encode_phase_s: from the first batch's encoding to the end of the last one's.
        encoder_busy: share of the encode phase in which the encoder worked; on a processor, where the same threads read
            and encode, their share of time spent encoding.
        reading: share of those threads' time spent reading; 0 on an accelerator, whose readers have time of their own.
        waited_for_slides_s: nothing to read, since the next slide was still being opened and its tissue found.
        waited_for_encoder_s: nothing to do for readers, since all buffers were full: as it should be.
        write_s: spent writing bags, beside the rest.
    """

    n_tiles: int = 0
    wall_s: float = 0.0
    encode_phase_s: float = 0.0
    encoder_busy: float = 0.0
    reading: float = 0.0
    waited_for_slides_s: float = 0.0
    waited_for_encoder_s: float = 0.0
    write_s: float = 0.0

    @property
    def tiles_per_s(self) -> float:
        """Tiles per second of the encode phase."""
        return self.n_tiles / self.encode_phase_s if self.encode_phase_s else 0.0

    @property
    def described(self) -> str:
        """A line for people."""
        return (
            f"{self.n_tiles} tiles in {self.wall_s:.1f} s, {self.tiles_per_s:.1f} tiles/s while encoding; encoder busy "
            f"{self.encoder_busy:.0%}, reading {self.reading:.0%}; waited {self.waited_for_slides_s:.1f} s for slides"
        )


@dataclass(frozen=True)
class ExtractionSummary:
    """All that became of a run, in the order of the inputs.

    `elsewhere` maps the slides that other runs hold to who does.
    """

    results: tuple[ExtractionResult, ...]
    failures: tuple[Failure, ...]
    elsewhere: dict[str, str] = field(default_factory=dict)
    throughput: tuple[Throughput, ...] = ()


def measured(meter: Meter, lanes: Lanes, wall_s: float) -> Throughput:
    """Return what the time of a run that took `wall_s` seconds went to."""
    phase_s = meter.encode_phase_s
    busy_s = meter.seconds("encode") / lanes.n_encoding if lanes.reads_and_encodes else meter.seconds("encoder busy")
    reading_s = meter.seconds("read") / lanes.n_encoding if lanes.reads_and_encodes else 0.0
    return Throughput(
        n_tiles=meter.n_tiles,
        wall_s=wall_s,
        encode_phase_s=phase_s,
        encoder_busy=min(1.0, busy_s / phase_s) if phase_s else 0.0,
        reading=min(1.0, reading_s / phase_s) if phase_s else 0.0,
        waited_for_slides_s=meter.seconds("wait for slides"),
        waited_for_encoder_s=meter.seconds("wait for encoder"),
        write_s=meter.seconds("write"),
    )
