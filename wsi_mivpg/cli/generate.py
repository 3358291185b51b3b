"""``wsi-mivpg generate``: the texts of a manifest's cases, one line each, to be scored by ``evaluate``.

Texts alone: pages with pictures and evidence are what ``report`` writes.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.errors import CohortError, WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.captioner import CaseBags, SlideCaptioner
    from wsi_mivpg.cohorts.case import Case

EXAMPLES = (
    "Examples: wsi-mivpg generate split.jsonl --split test --model out/model --out predictions.jsonl · "
    "wsi-mivpg evaluate predictions.jsonl split.jsonl --split test"
)


def generate(
    manifest: Annotated[Path, typer.Argument(help="Cases with bags, as `wsi-mivpg cohorts import` writes them.")],
    model: Annotated[str, typer.Option(help="'demo', or a folder that `wsi-mivpg train` wrote.")],
    out: Annotated[Path, typer.Option(help="Texts, JSON Lines: case_id, text, mean_logprob, flags.")],
    split: Annotated[str | None, typer.Option(help="The cases of this split only.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Cases at once.")] = 8,
    seed: Annotated[int | None, typer.Option(help="For models that write by sampling.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the texts as JSON.")] = False,
) -> None:
    """Let a model write the text of each case of a manifest, of all its slides or pictures together."""
    from wsi_mivpg.cohorts.case import read_manifest

    if split not in (None, "train", "val", "test"):
        raise typer.BadParameter(f"{split!r} is not train, val or test", param_hint="--split")
    cases = [case for case in read_manifest(manifest) if split in (None, case.split)]
    if not cases:
        raise CohortError(f"{manifest}: no case of split {split!r}; `wsi-mivpg cohorts split` makes splits")
    console.writable_folder(out.parent)
    from wsi_mivpg.atomic import write_text
    from wsi_mivpg.cli.report import load_model

    captioner = load_model(model, device)
    lines, failures = _written(captioner, cases, batch_size, seed)
    write_text(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    if lines:
        text = "\n".join(f"{line['case_id']}: {line['text']}" for line in lines)
        console.result({"texts": lines, "failures": failures}, f"{text}\n\n{out}", as_json=as_json)
    console.finish(len(lines), len(failures))


def _written(
    captioner: "SlideCaptioner", cases: "list[Case]", batch_size: int, seed: int | None
) -> tuple[list[dict[str, object]], dict[str, str]]:
    """Return a line for each case that could be read, and case id -> problem for the others."""
    lines: list[dict[str, object]] = []
    failures: dict[str, str] = {}
    with console.progress("generate") as advance:
        for start in range(0, len(cases), batch_size):
            read = []
            for case in cases[start : start + batch_size]:
                try:
                    read.append(_read(captioner, case))
                except WsiMivpgError as problem:
                    failures[case.case_id] = str(problem)
                    console.error(problem)
            for made in captioner.generate(read, batch_size=batch_size, seed=seed) if read else ():
                lines.append(
                    {
                        "case_id": made.case_id,
                        "text": made.text,
                        "mean_logprob": round(float(made.mean_logprob), 4),
                        "flags": list(made.flags),
                    }
                )
            advance(min(start + batch_size, len(cases)), len(cases), cases[start].case_id)
    return lines, failures


def _read(captioner: "SlideCaptioner", case: "Case") -> "CaseBags":
    """Open a case's bags and check them against the model."""
    from wsi_mivpg.bags import FeatureBag
    from wsi_mivpg.captioner import read_case

    if not case.bag_paths:
        raise CohortError(f"case {case.case_id!r} has no bag; extract its slides, or import the cohort with --bags")
    bags = [FeatureBag.open(path) for path in case.bag_paths]
    for bag in bags:
        captioner.check_bag(bag)
    return read_case(case.case_id, bags)
