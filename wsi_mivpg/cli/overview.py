"""``wsi-mivpg overview``: one page over the folder of a workflow."""

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console

if TYPE_CHECKING:
    from wsi_mivpg.reports.workflow_page import Overview, ReportLink

EXAMPLES = "Example: wsi-mivpg overview out/workflow"
_PAGES = {
    "Evaluation": "evaluation/evaluation.html",
    "The model's card": "model/model/README.md",
    "All reports (JSON Lines)": "reports.jsonl",
    "The cases with their bags": "cohort.jsonl",
}


def overview(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the workflow wrote.")],
    out: Annotated[Path | None, typer.Option(help="Page to write; default FOLDER/index.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a page that leads to every report and says what was extracted, what was left out and what failed."""
    from wsi_mivpg.atomic import write_text
    from wsi_mivpg.reports.workflow_page import overview_page

    found = gather(folder)
    page = out or folder / "index.html"
    write_text(page, overview_page(found))
    data = {
        "page": str(page),
        "slides": found.slides,
        "tiles": found.n_tiles,
        "cases": found.cases,
        "reports": len(found.reports),
        "left_out": found.left_out,
        "failed": {**found.failed_slides, **found.failed_reports},
    }
    text = (
        f"{page}: {sum(found.slides.values())} slides, {sum(found.cases.values())} cases, {len(found.reports)} reports"
    )
    console.result(data, text, as_json=as_json)


def gather(folder: Path) -> "Overview":
    """Read what the commands of a workflow left in its folder: only slides and cases that are on a list count."""
    from wsi_mivpg.cli.collect import left_out_file
    from wsi_mivpg.cohorts.case import read_manifest
    from wsi_mivpg.extraction.inputs import read_manifest as read_slides
    from wsi_mivpg.extraction.ledger import read_status
    from wsi_mivpg.reports.workflow_page import Overview

    slides: Counter[str] = Counter()
    failed: dict[str, str] = {}
    n_tiles = 0
    for shard in sorted((folder / "shards").glob("*.csv")):
        rows = {row.slide_id: row for row in read_status(folder / "bags" / shard.stem / "status.csv")}
        for slide in read_slides(shard):
            row = rows.get(slide.slide_id)
            slides["not extracted" if row is None else "failed" if row.state == "failed" else "extracted"] += 1
            if row is not None and row.state == "failed":
                failed[slide.slide_id] = row.message
            n_tiles += row.n_tiles if row else 0
    cohort = folder / "cohort.jsonl"
    cases = Counter(case.split or "no split" for case in read_manifest(_split(folder))) if cohort.is_file() else {}
    reports, failed_reports = _reports(folder)
    return Overview(
        slides=dict(slides),
        n_tiles=n_tiles,
        cases=dict(cases),
        reports=reports,
        left_out=_failures(left_out_file(cohort)),
        failed_slides=failed,
        failed_reports=failed_reports,
        pages={title: path for title, path in _PAGES.items() if (folder / path).is_file()},
    )


def _split(folder: Path) -> Path:
    split = folder / "split.jsonl"
    return split if split.is_file() else folder / "cohort.jsonl"


def _reports(folder: Path) -> "tuple[list[ReportLink], dict[str, str]]":
    from wsi_mivpg.reports import file_name, read_jsonl
    from wsi_mivpg.reports.workflow_page import ReportLink

    links: list[ReportLink] = []
    failed: dict[str, str] = {}
    for listed in sorted((folder / "cases").glob("*.jsonl")):
        place = folder / "reports" / listed.stem
        written = read_jsonl(place / "reports.jsonl") if (place / "reports.jsonl").is_file() else []
        links += [
            ReportLink(
                one.case_id, f"reports/{listed.stem}/{file_name(one.case_id)}", one.shown_text, len(one.warnings)
            )
            for one in written
        ]
        failed |= _failures(place / "failures.csv")
    return links, failed


def _failures(path: Path) -> dict[str, str]:
    """Return name -> reason of a failures.csv or a list of cases left out, {} where there is none."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {name: reason for name, reason in list(csv.reader(stream))[1:]}
