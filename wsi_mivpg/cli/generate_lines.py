"""The lines of ``wsi-mivpg generate``: a case's text as it was asked for, free, in sections or of a schema's fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.cli import console
from wsi_mivpg.cli.bag_cases import in_batches
from wsi_mivpg.cli.case_fields import write_fields
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.prompting import FieldSchema, parse_sections, sections_prompt
from wsi_mivpg.prompting.ask import zeroed


@dataclass(frozen=True, eq=False)
class Asked:
    """How texts are asked for.

    Attributes:
        prompt: in place of the model's own.
        sections: headers to ask for after the prompt.
        schema: fields to fill instead of a free text.
        stream: show each text while it is written.
        zeroed: show the model zeros in the place of features.
    """

    prompt: str | None
    sections: Sequence[str] | None
    schema: FieldSchema | None
    stream: bool
    zeroed: bool


def written(
    captioner: SlideCaptioner, cases: Sequence[Case], asked: Asked, batch_size: int, seed: int | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return a line for each case that could be read and written about, and case id -> problem for the others.

    Raises:
        PromptError: two sections are the same, or none is named.
    """
    prompt = asked.prompt or captioner.config.prompt
    if asked.sections is not None:
        prompt = sections_prompt(prompt, asked.sections)
    lines: list[dict[str, Any]] = []
    failures: dict[str, str] = {}

    def fail(case_id: str, problem: object) -> None:
        failures[case_id] = str(problem)
        console.error(problem)

    def work(read: Sequence[CaseBags]) -> list[dict[str, Any]]:
        shown = [zeroed(case) for case in read] if asked.zeroed else read
        return _lines(captioner, shown, asked, prompt, seed)

    with console.progress("generate") as advance:
        for done, some in in_batches(captioner, cases, batch_size, work, fail):
            lines += some
            advance(done, len(cases), cases[done - 1].case_id)
    return lines, failures


def _lines(
    captioner: SlideCaptioner, read: Sequence[CaseBags], asked: Asked, prompt: str, seed: int | None
) -> list[dict[str, Any]]:
    if asked.schema is not None:
        filled = write_fields(captioner, read, asked.schema, len(read))
        made = [one.generated for one in filled]
        more: list[dict[str, Any]] = [
            {"fields": [field.model_dump(mode="json") for field in one.fields]} for one in filled
        ]
    else:
        streamer = None
        if asked.stream:
            from transformers import TextStreamer

            streamer = TextStreamer(captioner.tokenizer, skip_prompt=True, skip_special_tokens=True)
        made = captioner.generate(read, [prompt], batch_size=len(read), seed=seed, streamer=streamer)
        more = [_sections(one.text, asked.sections) for one in made]
    return [
        {
            "case_id": one.case_id,
            "text": one.text,
            "mean_logprob": round(float(one.mean_logprob), 4),
            "flags": list(one.flags),
            **extra,
        }
        for one, extra in zip(made, more, strict=True)
    ]


def _sections(text: str, names: Sequence[str] | None) -> dict[str, Any]:
    if names is None:
        return {}
    parsed = parse_sections(text, names)
    return {
        "sections": parsed.found,
        "missing_sections": list(parsed.missing),
        "unknown_sections": list(parsed.unknown),
    }
