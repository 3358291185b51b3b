"""``wsi-mivpg ask``: closed questions about cases, answered by likelihood rather than by what is written."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.cli.inputs import Inputs, check_splits, write_failures

if TYPE_CHECKING:
    from wsi_mivpg.prompting import Answer, Question

EXAMPLES = (
    "Examples: wsi-mivpg ask bags --model out/model --question 'Is there necrosis?' · "
    "wsi-mivpg ask cohort.jsonl --split test --model out/model --question 'What is the grade?' "
    "--choice low --choice intermediate --choice high --prior · "
    "wsi-mivpg ask cohort.jsonl --model out/model --questions questions.yaml --out out/answers"
)
SCHEMA = "wsi-mivpg-answers/1"
_COLUMNS = ("case_id", "question_id", "question", "answer", "probability", "agreement", "order_sensitivity", "orders")


def ask(
    inputs: Annotated[
        list[Path], typer.Argument(help="Bags, folders of bags, or manifests of cases (.jsonl, .csv, .parquet).")
    ],
    model: Annotated[str, typer.Option(help="'demo', or a folder that `wsi-mivpg train` wrote.")],
    question: Annotated[str | None, typer.Option(help="What to ask of each case.")] = None,
    yes_no: Annotated[
        bool, typer.Option("--yes-no", help="Answers: Yes and No. The default without --choice.")
    ] = False,
    choice: Annotated[list[str] | None, typer.Option(help="An answer that is allowed; repeat.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="YAML list of questions: `question`, and if wanted `id` and `choices`.")
    ] = None,
    orders: Annotated[int, typer.Option(min=1, help="In how many orders the options are listed, at most.")] = 6,
    prior: Annotated[
        bool, typer.Option("--prior", help="Let what the model says of zeroed features count for nothing.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Of a manifest, the cases of this split only.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for answers.json, answers.csv and failures.csv.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at once.")] = 8,
    seed: Annotated[int, typer.Option(help="Of orders, where there are more than --orders.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask closed questions about each case: the probability of each answer, and how much it hangs on their order."""
    check_splits(split)
    asked = _questions(question, yes_no, choice, questions)
    if out is not None:
        console.writable_folder(out)
    from wsi_mivpg.cli.bag_cases import find_cases, in_batches
    from wsi_mivpg.cli.report import load_model
    from wsi_mivpg.prompting import ask as answer

    found = Inputs()
    cases = find_cases(inputs, split, found.fail)
    answers: list[Answer] = []
    if cases:
        captioner = load_model(model, device)
        with console.progress("ask") as advance:
            for done, some in in_batches(
                captioner,
                cases,
                batch_size,
                lambda read: answer(
                    captioner, read, asked, batch_size=batch_size, max_orders=orders, prior=prior, seed=seed
                ),
                found.fail,
            ):
                answers += some
                advance(done, len(cases), cases[done - 1].case_id)
    elif not found.failures:
        found.fail(", ".join(map(str, inputs)), f"no case of split {split!r}; `wsi-mivpg cohorts split` makes splits")
    data = {
        "schema_version": SCHEMA,
        "model": model,
        "answers": [_as_data(one) for one in answers],
        "failures": found.failures,
    }
    if out is not None:
        _write(out, data, answers, found)
    if answers:
        rows = [
            (
                one.case_id,
                one.question.question_id,
                one.answer,
                f"{one.probability:.3f}",
                f"{one.order_sensitivity:.3f}",
            )
            for one in answers
        ]
        headers = ("case", "question", "answer", "probability", "order sensitivity")
        console.result(data, console.table(headers, rows), as_json=as_json)
    console.finish(len(answers), len(found.failures))


def _questions(text: str | None, yes_no: bool, choices: list[str] | None, file: Path | None) -> "list[Question]":
    """Return what the options ask."""
    if (text is None) == (file is None):
        raise typer.BadParameter("give either --question or --questions", param_hint="--question")
    if yes_no and choices:
        raise typer.BadParameter("the answers are either --yes-no or those of --choice", param_hint="--choice")
    if file is not None and (yes_no or choices):
        raise typer.BadParameter(
            "with --questions, each question in the file has its own choices", param_hint="--choice"
        )
    from wsi_mivpg.prompting import YES_NO, Question, read_questions

    if file is not None:
        return read_questions(file)
    return [Question("q1", text or "", tuple(choices or YES_NO))]


def _as_data(answer: "Answer") -> dict[str, Any]:
    """Return an answer as JSON has it, its question spelled out."""
    plain = asdict(answer)
    question = plain.pop("question")
    return {
        "case_id": plain.pop("case_id"),
        "question_id": question["question_id"],
        "question": question["text"],
    } | plain


def _write(out: Path, data: dict[str, Any], answers: "list[Answer]", found: Inputs) -> None:
    from wsi_mivpg.atomic import write_text

    write_text(out / "answers.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_as_data, answers))
    write_text(out / "answers.csv", stream.getvalue())
    write_failures(out, found)
