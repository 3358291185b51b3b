"""The page over a whole workflow: what was extracted, left out and failed, and a link to every report.

It is given counts and links; the folder that they come from is the command's matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsi_mivpg.reports.html import _environment, _read
from wsi_mivpg.reports.report import DISCLAIMER


@dataclass(frozen=True)
class ReportLink:
    """A case's report: where its page is, relative to the overview, its text, and how many warnings it has."""

    case_id: str
    page: str
    text: str
    n_warnings: int


@dataclass(frozen=True)
class Overview:
    """What a workflow has come to.

    Attributes:
        slides: state -> how many.
        n_tiles: of all bags.
        cases: split -> how many that have all their bags.
        reports: in reading order.
        left_out: case id -> why it is not among `cases`.
        failed_slides, failed_reports: name -> why.
        pages: title -> path of what else there is to read, relative to the page.
    """

    slides: Mapping[str, int]
    n_tiles: int
    cases: Mapping[str, int]
    reports: Sequence[ReportLink]
    left_out: Mapping[str, str]
    failed_slides: Mapping[str, str]
    failed_reports: Mapping[str, str]
    pages: Mapping[str, str]


def overview_page(overview: Overview) -> str:
    """Return the page. All text is escaped; it has no script."""
    troubles = {
        "Slides that failed": overview.failed_slides,
        "Cases left out": overview.left_out,
        "Reports that failed": overview.failed_reports,
    }
    return (
        _environment()
        .get_template("overview.html.j2")
        .render(
            overview=overview,
            troubles={title: found for title, found in troubles.items() if found},
            disclaimer=DISCLAIMER,
            styles=_read("templates/style.css"),
            scripts=[],
        )
    )
