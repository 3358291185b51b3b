"""``wsi-mivpg calibrate``: the trust gates of a model, from its training cases and a split that it was not trained on.

What is computed lies in `wsi_mivpg.trust`; the result is one file in the model's folder, which `report` then uses.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_mivpg.cli import console
from wsi_mivpg.errors import CohortError, WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.captioner import CaseBags, SlideCaptioner
    from wsi_mivpg.cohorts.case import Case
    from wsi_mivpg.trust import TrustGates
    from wsi_mivpg.trust.calibration import Observed, Reference

EXAMPLES = (
    "Examples: wsi-mivpg calibrate cases.jsonl --model out/model --split val · "
    "wsi-mivpg calibrate rendered.jsonl lung.jsonl --model out/model --samples 4 --json"
)

Failures = dict[str, str]


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
    from wsi_mivpg.trust import load_gates

    earlier = None if train else load_gates(model)
    if not train and earlier is None:
        raise CohortError(f"{shown}: no case of split 'train' with bags; they tell what the model's slides look like")
    folder = console.writable_folder(
        find_model(model), "copy the model's folder to a place where you can write, and give that as --model"
    )
    captioner = load_model(model, device)
    failures: Failures = {}
    reference = _reference(captioner, train, seed, failures) if earlier is None else _kept(earlier)
    observed = _observed(captioner, reference, asked, (samples, batch_size, seed), failures)
    gates, path = _written(folder, observed, reference)
    payload = {
        "file": str(path),
        "thresholds": {name: vars(one) for name, one in gates.thresholds.items()},
        "sentence_threshold": gates.confidence.threshold,
        **gates.facts,
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
    settings: tuple[int, int, int],
    failures: Failures,
) -> "list[Observed]":
    """Let the model write about each case, batch by batch; one that cannot be read or written about is noted."""
    from wsi_mivpg.cli.case_trust import draw_texts, sentences_of
    from wsi_mivpg.trust import observe

    samples, batch_size, seed = settings
    found: list[Observed] = []
    with console.progress("calibrate") as advance:
        for start in range(0, len(cases), batch_size):
            read = []
            for case in cases[start : start + batch_size]:
                try:
                    read.append((case, read_case_of(captioner, case)))
                except WsiMivpgError as problem:
                    _fail(failures, case.case_id, problem)
            drawn = draw_texts(captioner, [bags for _, bags in read], samples, batch_size, seed) if read else []
            for (case, bags), texts in zip(read, drawn, strict=True):
                try:
                    found.append(
                        observe(
                            captioner,
                            reference,
                            bags,
                            case.reports,
                            texts,
                            lambda made: sentences_of(captioner, made.token_ids, made.text),
                        )
                    )
                except WsiMivpgError as problem:
                    _fail(failures, case.case_id, problem)
            advance(min(start + batch_size, len(cases)), len(cases), cases[start].case_id)
    return found


def _written(folder: Path, observed: "list[Observed]", reference: "Reference") -> "tuple[TrustGates, Path]":
    from wsi_mivpg.atomic import sha256_of
    from wsi_mivpg.captioner.saving import WEIGHTS_FILE
    from wsi_mivpg.trust import calibrated, write_gates

    gates = calibrated(observed, reference, sha256_of(folder / WEIGHTS_FILE))
    return gates, write_gates(folder, gates)


def _fail(failures: Failures, case_id: str, problem: WsiMivpgError) -> None:
    failures[case_id] = str(problem)
    console.error(problem)


def _in_words(gates: "TrustGates", path: Path) -> str:
    facts = gates.facts
    rows = [[name, f"{one.usual:.3g}", f"{one.shut:.3g}"] for name, one in gates.thresholds.items()]
    rows.append(["sentence confidence", "", f"{gates.confidence.threshold:.3g}"])
    return "\n".join(
        [
            console.table(["gate", "usual", "shut below"], rows),
            "",
            f"{facts['right_reports']} of {facts['calibration_cases']} reports have the right diagnosis; the gates "
            f"refuse {facts['right_reports_refused']:.1%} of them.",
            f"{facts['right_sentences']} of {facts['sentences']} sentences are right; calibration error of unseen "
            f"cases {facts['calibration_error']:.3f}.",
            str(path),
        ]
    )
