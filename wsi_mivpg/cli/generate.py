"""``wsi-mivpg generate``: the texts of a manifest's cases, one line each, to be scored by ``evaluate``.

Texts alone: pages with pictures and evidence are what ``report`` writes. How they are asked for is in `generate_lines`.
"""

import json
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import check_splits
from wsi_mivpg.errors import CohortError

EXAMPLES = (
    "Examples: wsi-mivpg generate split.jsonl --split test --model out/model --out predictions.jsonl · "
    "wsi-mivpg generate split.jsonl --split test --model out/model --control shuffled --out shuffled.jsonl · "
    "wsi-mivpg generate split.jsonl --model out/model --fields biopsy --out fields.jsonl · "
    "wsi-mivpg generate split.jsonl --model out/model --sections 'Specimen;Final diagnosis' --out sections.jsonl · "
    "wsi-mivpg evaluate predictions.jsonl split.jsonl --split test"
)


class Control(StrEnum):
    """What a model is shown instead of a case's own slides."""

    shuffled = "shuffled"
    zeroed = "zeroed"
    text_only = "text-only"


def generate(
    manifest: Annotated[Path, typer.Argument(help="Cases with bags, as `wsi-mivpg cohorts import` writes them.")],
    model: Annotated[str, typer.Option(help="'demo', or a folder that `wsi-mivpg train` wrote.")],
    out: Annotated[Path, typer.Option(help="Texts, JSON Lines: case_id, text, mean_logprob, flags.")],
    split: Annotated[str | None, typer.Option(help="The cases of this split only.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What to ask, in place of the model's own prompt.")] = None,
    sections: Annotated[
        str | None, typer.Option(help="Ask for sections with these headers, ; between them, and take the text apart.")
    ] = None,
    fields: Annotated[
        str | None,
        typer.Option(help="Fill a schema: biopsy, resection, virtual-biopsy, or a JSON Schema as a .json file."),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="With --fields: Jinja file that makes the text of the values.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Cases at once.")] = 8,
    seed: Annotated[int | None, typer.Option(help="For models that write by sampling.")] = None,
    control: Annotated[
        Control | None,
        typer.Option(help="Show another patient's slides, zeros, or nothing but the prompt: does the model look?"),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show each text while it is written, one at a time.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the texts as JSON.")] = False,
) -> None:
    """Let a model write the text of each case of a manifest, of all its slides or pictures together."""
    from wsi_mivpg.cohorts.case import read_manifest

    check_splits(split)
    if fields is not None and (prompt is not None or sections is not None or stream):
        raise typer.BadParameter("goes without --prompt, --sections and --stream", param_hint="--fields")
    if template is not None and fields is None:
        raise typer.BadParameter("needs --fields, whose values it tells", param_hint="--template")
    cases = [case for case in read_manifest(manifest) if split in (None, case.split)]
    if not cases:
        raise CohortError(f"{manifest}: no case of split {split!r}; `wsi-mivpg cohorts split` makes splits")
    console.writable_folder(out.parent)
    from wsi_mivpg.atomic import write_text
    from wsi_mivpg.cli.report import load_model

    if control is Control.shuffled:
        from wsi_mivpg.cohorts.controls import with_other_slides

        cases = with_other_slides(cases, seed=seed or 0)
    from wsi_mivpg.prompting import section_names

    wanted = None if sections is None else section_names(sections)
    schema = None
    if fields is not None:
        from wsi_mivpg.prompting import load_schema

        schema = load_schema(fields, template)
    captioner = load_model(model, device)
    from wsi_mivpg.cli.generate_lines import Asked, written

    asked = Asked(prompt, wanted, schema, stream, zeroed=control is Control.zeroed)
    with captioner.text_only() if control is Control.text_only else nullcontext():
        lines, failures = written(captioner, cases, asked, batch_size, seed)
    write_text(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    if lines:
        shown = [] if stream else [f"{line['case_id']}: {line['text']}" for line in lines]
        text = "\n".join([*shown, "", str(out)])
        console.result({"texts": lines, "failures": failures}, text, as_json=as_json)
    console.finish(len(lines), len(failures))
