"""``wsi-mivpg cohorts collect``: a cohort with the bags that the jobs of a workflow made."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.errors import CohortError

EXAMPLES = (
    "Example: wsi-mivpg shards cohort.csv --out shards && wsi-mivpg extract shards/0001.csv --out bags/0001 && "
    "wsi-mivpg cohorts collect cohort.csv --shards shards --bags bags --out cohort.jsonl"
)


def collect(
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="Manifest of the slides that were extracted.")],
    shards: Annotated[Path, typer.Option(help="Folder of the lists that `wsi-mivpg shards` wrote.")],
    bags: Annotated[Path, typer.Option(help="Folder with a folder of bags for each list, of the same name.")],
    out: Annotated[Path, typer.Option(help="Manifest to write: .csv, .parquet or .jsonl.")],
    most_left_out: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the cases that may be left out; more is an error.")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the cases whose slides all have bags; those left out, and why, go to <out>.left-out.csv beside it.

    A case is left out when one of its slides failed, or none has tissue; then the exit code is 3.
    """
    from wsi_mivpg.atomic import write_text
    from wsi_mivpg.cohorts.case import write_manifest
    from wsi_mivpg.cohorts.complete import complete_cases
    from wsi_mivpg.extraction.inputs import read_manifest
    from wsi_mivpg.extraction.ledger import read_status

    paths: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for shard in sorted(shards.glob("*.csv")):
        rows = {row.slide_id: row for row in read_status(bags / shard.stem / "status.csv")}
        for slide in read_manifest(shard):
            row = rows.get(slide.slide_id)
            if row is not None and row.state == "failed":
                failed[slide.slide_id] = row.message
            else:
                paths[slide.slide_id] = bags / shard.stem / f"{slide.slide_id}.h5"
    complete = complete_cases(cohort, paths, failed)
    n_left_out, total = len(complete.left_out), len(complete.left_out) + len(complete.cases)
    write_text(left_out_file(out), _as_csv(complete.left_out))
    if not complete.cases or n_left_out > most_left_out * total:
        first = next(iter(complete.left_out.items()))
        raise CohortError(
            f"{n_left_out} of {total} cases of {cohort} would be left out, such as {first[0]} ({first[1]}); "
            f"{left_out_file(out)} names all; repair or remove them"
        )
    write_manifest(out, complete.cases)
    for case_id, reason in complete.left_out.items():
        console.note(f"left out: {case_id}: {reason}")
    data = {"manifest": str(out), "cases": len(complete.cases), "left_out": complete.left_out}
    console.result(data, f"{out}: {len(complete.cases)} cases, {n_left_out} left out", as_json=as_json)
    console.finish(len(complete.cases), n_left_out)


def left_out_file(manifest: Path) -> Path:
    """Return where the cases that are not in a collected manifest are named."""
    return manifest.with_suffix(".left-out.csv")


def _as_csv(left_out: Mapping[str, str]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case_id", "reason"))
    writer.writerows(left_out.items())
    return text.getvalue()
