"""What a check of a cohort found: the one type, and how names are listed in its messages."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["leak", "error", "warning", "rate"]
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: "patient", "file", "features", "bag", "encoder", "report", "near-duplicate" …
        severity: a leak or an error makes the cohort unfit for training; a warning says what to look at; a rate is a
            number that belongs beside every score.
        message: in plain words, with the way out.
        cases: ids of the cases that it concerns.
        value: the number of a rate, 0 to 1; None elsewhere, and where it cannot be had.
    """

    kind: str
    severity: Severity
    message: str
    cases: tuple[str, ...] = ()
    value: float | None = None


def listed(names: Iterable[str]) -> str:
    """Return the first five names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
