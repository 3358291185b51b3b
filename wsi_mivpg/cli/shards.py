"""``wsi-mivpg shards``: lists of slides or cases, one for each job of a workflow."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import check_splits, collect
from wsi_mivpg.errors import CohortError, SlideError

EXAMPLES = (
    "Examples: wsi-mivpg shards cohort.csv --size 50 --out shards · "
    "wsi-mivpg extract shards/0001.csv --out bags/0001 · "
    "wsi-mivpg shards split.jsonl --cases --split test --size 100 --out cases"
)


def shards(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="What `extract` takes; with --cases one manifest."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the lists, 0001.csv and so on; those there are kept.")],
    size: Annotated[int, typer.Option(min=1, help="Slides, or cases, of a new list.")] = 50,
    cases: Annotated[
        bool, typer.Option("--cases", help="Lists of whole cases (.jsonl), for `report` and `generate`.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="With --cases: those of this split only.")] = None,
    needs_split: Annotated[
        list[str] | None,
        typer.Option(help="Stop if no case of the manifest is of this split: before the extraction, not after it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Divide slides or cases into lists for as many jobs.

    Whatever is in a list stays in it. Slides that are added go into new lists, and lists that stay the same are not
    touched, so that a workflow does again only what it must.
    """
    if split is not None and not cases:
        raise typer.BadParameter("it chooses cases; pass --cases too", param_hint="--split")
    check_splits(split)
    check_splits(*needs_split or (), option="--needs-split")
    if (cases or needs_split) and len(inputs) > 1:
        option = "--cases" if cases else "--needs-split"
        raise typer.BadParameter(f"{len(inputs)} inputs; with {option} give one manifest", param_hint="INPUT")
    if needs_split:
        _check_splits(Path(inputs[0]), needs_split)
    console.writable_folder(out)
    made, files = _of_cases(Path(inputs[0]), split, out, size) if cases else _of_slides(inputs, out, size)
    rows = [(name, len(inside)) for name, inside in made.items()]
    table = console.table(("list", "cases" if cases else "slides"), rows)
    # For workflows that must carry the files to their jobs: relative to the folder of the lists, as in the lists.
    paths = {one: [os.path.relpath(path.absolute(), out.absolute()) for path in of] for one, of in files.items()}
    console.result({"shards": made, "files": paths}, table, as_json=as_json)


def _check_splits(manifest: Path, needed: Sequence[str]) -> None:
    from wsi_mivpg.cohorts.importers.own import read

    stated = {record.case.split for record in read(manifest).records.values()}
    if missing := [split for split in needed if split not in stated]:
        raise CohortError(
            f"{manifest}: no case of split {missing[0]!r}; give it a column `split`, or let `wsi-mivpg cohorts split` "
            "make them (in the workflow: `split` of the configuration, or `report.split: null` for all cases)"
        )


def _of_slides(inputs: Sequence[str], out: Path, size: int) -> tuple[dict[str, list[str]], dict[str, list[Path]]]:
    from wsi_mivpg.extraction.inputs import read_manifest, write_manifest
    from wsi_mivpg.shards import keep_shards

    found = collect(inputs)
    if found.failures:
        raise SlideError("; ".join(found.failures.values()))
    slides = {slide.slide_id: slide for slide in found.slides}
    made = keep_shards(
        out,
        ".csv",
        list(slides),
        size,
        read_ids=lambda path: [slide.slide_id for slide in read_manifest(path)],
        write=lambda path, ids: write_manifest(path, [slides[one] for one in ids]),
    )
    return made, {one.slide_id: [one.source] for one in found.slides if isinstance(one.source, Path)}


def _of_cases(
    manifest: Path, split: str | None, out: Path, size: int
) -> tuple[dict[str, list[str]], dict[str, list[Path]]]:
    from wsi_mivpg.cohorts.case import read_manifest, write_manifest
    from wsi_mivpg.shards import keep_shards

    found = {case.case_id: case for case in read_manifest(manifest) if split in (None, case.split)}
    if not found:
        raise CohortError(f"{manifest}: no case of split {split!r}; `wsi-mivpg cohorts split` makes splits")
    made = keep_shards(
        out,
        ".jsonl",
        list(found),
        size,
        read_ids=lambda path: [case.case_id for case in read_manifest(path)],
        write=lambda path, ids: write_manifest(path, [found[one] for one in ids]),
    )
    return made, {case.case_id: [*case.slide_paths, *case.bag_paths] for case in found.values()}
