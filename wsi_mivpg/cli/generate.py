"""``wsi-mivpg generate``: the texts of a manifest's cases, one line each, to be scored by ``evaluate``.

Texts alone: pages with pictures and evidence are what ``report`` writes.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
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
    "wsi-mivpg generate split.jsonl --split test --model out/model --control shuffled --out shuffled.jsonl · "
    "wsi-mivpg evaluate predictions.jsonl split.jsonl --split test"
)


class Control(StrEnum):
    """What a model is shown instead of a case's own slides."""

    shuffled = "shuffled"
    zeroed = "zeroed"


def generate(
    manifest: Annotated[Path, typer.Argument(help="Cases with bags, as `wsi-mivpg cohorts import` writes them.")],
    model: Annotated[str, typer.Option(help="'demo', or a folder that `wsi-mivpg train` wrote.")],
    out: Annotated[Path, typer.Option(help="Texts, JSON Lines: case_id, text, mean_logprob, flags.")],
    split: Annotated[str | None, typer.Option(help="The cases of this split only.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Cases at once.")] = 8,
    seed: Annotated[int | None, typer.Option(help="For models that write by sampling.")] = None,
    control: Annotated[
        Control | None, typer.Option(help="Show another patient's slides, or zeros: does the model look?")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show each text while it is written, one at a time.")
    ] = False,
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

    if control is Control.shuffled:
        from wsi_mivpg.cohorts.controls import with_other_slides

        cases = with_other_slides(cases, seed=seed or 0)
    captioner = load_model(model, device)
    lines, failures = _written(captioner, cases, batch_size, seed, stream, zeroed=control is Control.zeroed)
    write_text(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    if lines:
        shown = [] if stream else [f"{line['case_id']}: {line['text']}" for line in lines]
        text = "\n".join([*shown, "", str(out)])
        console.result({"texts": lines, "failures": failures}, text, as_json=as_json)
    console.finish(len(lines), len(failures))


def _written(
    captioner: "SlideCaptioner",
    cases: "list[Case]",
    batch_size: int,
    seed: int | None,
    stream: bool,
    *,
    zeroed: bool,
) -> tuple[list[dict[str, object]], dict[str, str]]:
    """Return a line for each case that could be read and written about, and case id -> problem for the others."""
    lines: list[dict[str, object]] = []
    failures: dict[str, str] = {}

    def fail(case_id: str, problem: WsiMivpgError) -> None:
        failures[case_id] = str(problem)
        console.error(problem)

    with console.progress("generate") as advance:
        for start in range(0, len(cases), batch_size):
            read = []
            for case in cases[start : start + batch_size]:
                try:
                    read.append(_read(captioner, case, zeroed=zeroed))
                except WsiMivpgError as problem:
                    fail(case.case_id, problem)
            lines += _lines(captioner, read, seed, stream, fail)
            advance(min(start + batch_size, len(cases)), len(cases), cases[start].case_id)
    return lines, failures


def _lines(
    captioner: "SlideCaptioner",
    read: "list[CaseBags]",
    seed: int | None,
    stream: bool,
    fail: Callable[[str, WsiMivpgError], None],
) -> list[dict[str, object]]:
    """Write about these cases together; where one of them cannot be written about, each alone."""
    if not read:
        return []
    streamer = None
    if stream:
        from transformers import TextStreamer

        streamer = TextStreamer(captioner.tokenizer, skip_prompt=True, skip_special_tokens=True)
    try:
        made = captioner.generate(read, batch_size=len(read), seed=seed, streamer=streamer)
    except WsiMivpgError as problem:
        if len(read) > 1:
            return [line for case in read for line in _lines(captioner, [case], seed, stream, fail)]
        fail(read[0].case_id, problem)
        return []
    return [
        {
            "case_id": one.case_id,
            "text": one.text,
            "mean_logprob": round(float(one.mean_logprob), 4),
            "flags": list(one.flags),
        }
        for one in made
    ]


def _read(captioner: "SlideCaptioner", case: "Case", *, zeroed: bool) -> "CaseBags":
    """Open a case's bags and check them against the model; zeroed, its features are zeros of the same number."""
    from wsi_mivpg.bags import FeatureBag

    if not case.bag_paths:
        raise CohortError(f"case {case.case_id!r} has no bag; extract its slides, or import the cohort with --bags")
    bags = [FeatureBag.open(path) for path in case.bag_paths]
    for bag in bags:
        captioner.check_bag(bag)
    read = captioner.read(case.case_id, bags)
    if zeroed:
        import torch

        return replace(read, instances=torch.zeros(len(read), bags[0].feature_dim))
    return read
