"""What asking costs and whether the answers are right: free text, fields and questions, on held-out virtual slides.

    python benchmarks/prompting.py [--data out/evidence/data] [--cases 24]

Cases and bags are those of `benchmarks/evidence.py`, which makes them; the demonstration model has never seen them.
Fields are asked for twice: in the words of its reports, and as JSON, which it was never taught.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner, read_case
from wsi_mivpg.cohorts.case import read_manifest
from wsi_mivpg.cohorts.wording import FINDING_PHRASES
from wsi_mivpg.evaluation.fields import extract_fields
from wsi_mivpg.prompting import Filled, Question, ask, fill, load_schema
from wsi_mivpg.prompting.schema import parse_schema

FINDINGS = ("adenocarcinoma", "squamous cell carcinoma", "dense lymphoid infiltrate", "necrosis")
QUESTION = Question("finding", "What is the main finding?", FINDINGS)
NEAR = 10
"""Percentage points between a stated and the true extent that still count as right."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("out/evidence/data"))
    parser.add_argument("--cases", type=int, default=24)
    arguments = parser.parse_args()
    bags = {path.stem: path for path in (arguments.data / "bags").glob("*.h5")}
    virtual = [case for case in read_manifest(arguments.data / "evidence.jsonl") if case.case_id in bags]
    virtual = virtual[: arguments.cases]
    truths = [case.truth or {} for case in virtual]
    cases = [read_case(case.case_id, [FeatureBag.open(bags[case.case_id])]) for case in virtual]
    captioner = SlideCaptioner.from_pretrained("demo")
    in_words = load_schema("virtual-biopsy")
    fields = {name: value for name, value in in_words.document.items() if name != "x-report"}
    as_json = replace(parse_schema("as JSON", json.dumps(fields)), template=in_words.template)

    print(f"{len(cases)} held-out slides, batch 8")
    print("| asked for as | finding right | extent within 10 | probability when right | when wrong | s a case |")
    print("|---|---|---|---|---|---|")
    began = time.perf_counter()
    read = [extract_fields(one.text) for one in captioner.generate(cases, batch_size=8)]
    took = time.perf_counter() - began
    right = [one.finding == truth["finding"] for one, truth in zip(read, truths, strict=True)]
    near = [_near(one.extent_percent, truth) for one, truth in zip(read, truths, strict=True)]
    _row("free text", right, near, None, took)
    for name, schema in (("fields, in its words", in_words), ("fields, as JSON", as_json)):
        began = time.perf_counter()
        filled = fill(captioner, cases, schema, 8)
        took = time.perf_counter() - began
        found = [{field.name: field for field in one.fields} for one in filled]
        right = [_finding(one) == truth["finding"] for one, truth in zip(filled, truths, strict=True)]
        near = [_near(one["extent_percent"].value, truth) for one, truth in zip(found, truths, strict=True)]
        _row(name, right, near, [one["diagnosis"].probability for one in found], took)
    for name, prior in (("a question", False), ("a question, prior-corrected", True)):
        began = time.perf_counter()
        answers = ask(captioner, cases, [QUESTION], batch_size=8, prior=prior)
        took = time.perf_counter() - began
        right = [one.answer in FINDING_PHRASES[truth["finding"]] for one, truth in zip(answers, truths, strict=True)]
        _row(name, right, None, [one.probability for one in answers], took)
        print(f"<!-- {name}: order sensitivity {np.mean([one.order_sensitivity for one in answers]):.2f} -->")


def _finding(filled: Filled) -> str | None:
    return extract_fields(filled.text).finding


def _near(extent: float | None, truth: dict[str, Any]) -> bool:
    return extent is not None and abs(extent - truth["extent_percent"]) <= NEAR


def _row(
    name: str, right: list[bool], near: list[bool] | None, probabilities: list[float] | None, seconds: float
) -> None:
    def mean(wanted: bool) -> str:
        chosen = [p for p, good in zip(probabilities or [], right, strict=False) if good is wanted]
        return f"{np.mean(chosen):.2f}" if chosen else "–"

    extent = "–" if near is None else f"{sum(near)}"
    print(
        f"| {name} | {sum(right)} | {extent} | {mean(True)} | {mean(False)} | {seconds / len(right):.1f} |", flush=True
    )


if __name__ == "__main__":
    main()
