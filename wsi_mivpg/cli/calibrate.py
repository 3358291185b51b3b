"""``wsi-mivpg calibrate``: the trust gates of a model, from its training cases and a split that it was not trained on.

What is computed lies in `wsi_mivpg.trust`; the result is one file in the model's folder, which `report` then uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.errors import CohortError, WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.captioner import CaseBags, Generated, SlideCaptioner
    from wsi_mivpg.cohorts.case import Case
    from wsi_mivpg.prompting import FieldSchema
    from wsi_mivpg.trust import JudgedField, TrustGates
    from wsi_mivpg.trust.calibration import Observed, Reference

EXAMPLES = (
    "Examples: wsi-mivpg calibrate cases.jsonl --model out/model --split val · "
    "wsi-mivpg calibrate rendered.jsonl lung.jsonl --model out/model --samples 4 --fields biopsy --json"
)

Failures = dict[str, str]
Judged: TypeAlias = "list[tuple[FieldSchema, list[JudgedField]]]"


@dataclass(frozen=True)
class _Settings:
    """What is asked of each case: further texts, cases at once, seed, and schemas to fill."""

    samples: int
    batch_size: int
    seed: int
    schemas: "tuple[FieldSchema, ...]"


def calibrate(
    manifests: Annotated[
        list[Path],
        typer.Argument(
            metavar="MANIFEST...",
            help="Cases with bags and reports, split 'train' among them; a model that has gates can do without it.",
        ),
    ],
    model: Annotated[str, typer.Option(help="'demo', or a folder that `wsi-mivpg train` wrote.")],
    split: Annotated[str, typer.Option(help="Cases whose reports are held against their references: val or test.")] = (
        "val"
    ),
    samples: Annotated[int, typer.Option(min=0, help="Further texts of each case, for `report --samples`.")] = 0,
    fields: Annotated[
        list[str] | None,
        typer.Option(help="Also the confidence of a schema's fields, for `report --fields`; may be given repeatedly."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Cases at once.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the samples and of the slides to compare with.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Choose a model's trust thresholds so that at most 5 % of right reports are refused, and fit its confidence."""
    from wsi_mivpg.cohorts.case import read_manifest

    if split not in ("val", "test"):
        raise typer.BadParameter(
            f"{split!r} is not val or test: a model is surer of its training cases than of any other",
            param_hint="--split",
        )
    cases = [case for manifest in manifests for case in read_manifest(manifest)]
    shown = ", ".join(map(str, manifests))
    train = [case for case in cases if case.split == "train" and case.bag_paths]
    asked = [case for case in cases if case.split == split and case.reports]
    if not asked:
        raise CohortError(f"{shown}: no case of split {split!r} with a report; `wsi-mivpg cohorts split` makes splits")
    from wsi_mivpg.captioner.saving import find_model
    from wsi_mivpg.cli.report import load_model
    from wsi_mivpg.prompting import load_schema
    from wsi_mivpg.trust import load_gates

    settings = _Settings(samples, batch_size, seed, tuple(map(load_schema, dict.fromkeys(fields or ()))))
    earlier = None if train else load_gates(model)
    if not train and earlier is None:
        raise CohortError(f"{shown}: no case of split 'train' with bags; they tell what the model's slides look like")
    folder = console.writable_folder(
        find_model(model), "copy the model's folder to a place where you can write, and give that as --model"
    )
    captioner = load_model(model, device)
    failures: Failures = {}
    reference = _reference(captioner, train, seed, failures) if earlier is None else _kept(earlier)
    observed, judged = _observed(captioner, reference, asked, settings, failures)
    gates, path = _written(folder, observed, reference, judged)
    payload = {
        "file": str(path),
        "thresholds": {name: vars(one) for name, one in gates.thresholds.items()},
        "sentence_threshold": gates.confidence.threshold,
        **gates.facts,
        "fields": {
            one.schema: {"fields": one.names, "threshold": one.confidence.threshold, **one.facts}
            for one in gates.fields.values()
        },
        "failures": failures,
    }
    console.result(payload, _in_words(gates, path), as_json=as_json)
    console.finish(len(observed), len(failures))


def read_case_of(captioner: "SlideCaptioner", case: "Case") -> "CaseBags":
    """Open a case's bags after checking that they are as the model's.

    Raises:
        CohortError: the case has no bag.
        BagError: a bag cannot be read or does not state how it was made.
        ModelError: a bag was made otherwise than the model's.
    """
    from wsi_mivpg.bags import FeatureBag
    from wsi_mivpg.captioner import read_case

    if not case.bag_paths:
        raise CohortError(f"case {case.case_id!r} has no bag; extract its slides, or leave it out of the manifest")
    bags = [FeatureBag.open(path) for path in case.bag_paths]
    for bag in bags:
        captioner.check_bag(bag)
    return read_case(case.case_id, bags)


def _reference(captioner: "SlideCaptioner", train: "list[Case]", seed: int, failures: Failures) -> "Reference":
    from wsi_mivpg.trust import make_reference, pooled

    usable, rows = [], []
    with console.progress("training cases") as advance:
        for place, case in enumerate(train, 1):
            try:
                rows.append(pooled(read_case_of(captioner, case)))
                usable.append(case)
            except WsiMivpgError as problem:
                _fail(failures, case.case_id, problem)
            advance(place, len(train), case.case_id)
    return make_reference(captioner, rows, lambda place: read_case_of(captioner, usable[place]), seed)


def _kept(gates: "TrustGates") -> "Reference":
    from wsi_mivpg.trust import reference_of

    reference = reference_of(gates)
    console.note(f"no case of split 'train' with bags: the {reference.n_training} that the model's gates hold are kept")
    return reference


def _observed(
    captioner: "SlideCaptioner",
    reference: "Reference",
    cases: "list[Case]",
    settings: _Settings,
    failures: Failures,
) -> "tuple[list[Observed], Judged]":
    """Let the model write about each case, batch by batch; one that cannot be read or written about is noted."""
    found: list[Observed] = []
    judged: Judged = [(schema, []) for schema in settings.schemas]
    step = settings.batch_size
    with console.progress("calibrate") as advance:
        for start in range(0, len(cases), step):
            read = []
            for case in cases[start : start + step]:
                try:
                    read.append((case, read_case_of(captioner, case)))
                except WsiMivpgError as problem:
                    _fail(failures, case.case_id, problem)
            found += _observe(captioner, reference, read, settings, failures)
            for schema, values in judged:
                values += _judge(captioner, schema, read, failures)
            advance(min(start + step, len(cases)), len(cases), cases[start].case_id)
    return found, judged


def _observe(
    captioner: "SlideCaptioner",
    reference: "Reference",
    read: "list[tuple[Case, CaseBags]]",
    settings: _Settings,
    failures: Failures,
) -> "list[Observed]":
    from wsi_mivpg.cli.case_trust import draw_texts, sentences_of
    from wsi_mivpg.trust import observe

    def sentences(made: "Generated") -> list[tuple[str, range]]:
        return sentences_of(captioner, made.token_ids, made.text)

    bags = [one for _, one in read]
    drawn = draw_texts(captioner, bags, settings.samples, settings.batch_size, settings.seed) if read else []
    found = []
    for (case, one), texts in zip(read, drawn, strict=True):
        try:
            found.append(observe(captioner, reference, one, case.reports, texts, sentences))
        except WsiMivpgError as problem:
            _fail(failures, case.case_id, problem)
    return found


def _judge(
    captioner: "SlideCaptioner", schema: "FieldSchema", read: "list[tuple[Case, CaseBags]]", failures: Failures
) -> "list[JudgedField]":
    from wsi_mivpg.cli.apart import apart
    from wsi_mivpg.cli.calibrate_fields import judged_fields

    cases = {id(bags): case for case, bags in read}  # two manifests may use the same name

    def work(some: "Sequence[CaseBags]") -> "list[JudgedField]":
        return judged_fields(captioner, [(cases[id(bags)], bags) for bags in some], schema)

    return apart([bags for _, bags in read], work, lambda case_id, problem: _fail(failures, case_id, problem))


def _written(
    folder: Path, observed: "list[Observed]", reference: "Reference", judged: "Judged"
) -> "tuple[TrustGates, Path]":
    from wsi_mivpg.atomic import sha256_of
    from wsi_mivpg.captioner.saving import WEIGHTS_FILE
    from wsi_mivpg.trust import calibrated, fit_fields, write_gates

    gates = calibrated(observed, reference, sha256_of(folder / WEIGHTS_FILE))
    fields = {schema.fingerprint: fit_fields(schema.name, values) for schema, values in judged}
    gates = replace(gates, fields=fields)
    return gates, write_gates(folder, gates)


def _fail(failures: Failures, case_id: str, problem: object) -> None:
    failures[case_id] = str(problem)
    console.error(problem)


def _in_words(gates: "TrustGates", path: Path) -> str:
    facts = gates.facts
    rows = [[name, f"{one.usual:.3g}", f"{one.shut:.3g}"] for name, one in gates.thresholds.items()]
    rows.append(["sentence confidence", "", f"{gates.confidence.threshold:.3g}"])
    rows += [[f"fields of {one.schema}", "", f"{one.confidence.threshold:.3g}"] for one in gates.fields.values()]
    return "\n".join(
        [
            console.table(["gate", "usual", "shut below"], rows),
            "",
            f"{facts['right_reports']} of {facts['calibration_cases']} reports have the right diagnosis; the gates "
            f"refuse {facts['right_reports_refused']:.1%} of them.",
            f"{facts['right_sentences']} of {facts['sentences']} sentences are right; calibration error of unseen "
            f"cases {facts['calibration_error']:.3f}.",
            *(
                f"{one.facts['right_values']} of {one.facts['values']} values of {one.schema} are right; calibration "
                f"error of unseen cases {one.facts['calibration_error']:.3f}, of the model's own probabilities "
                f"{one.facts['own_calibration_error']:.3f}."
                for one in gates.fields.values()
            ),
            str(path),
        ]
    )
