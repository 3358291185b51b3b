"""What the trust gates catch: held-out virtual slides, right ones and spoilt, swapped and foreign ones.

    python benchmarks/trust.py [--out out/trust] [--model wsi_mivpg/demo_model] [--samples 0] [--calibrate] [--install]

`--calibrate` runs `wsi-mivpg calibrate` on the validation cases first, which writes into the model's folder; with
`--train 0 0` the training cases that its gates hold already are kept. Rows are kept one by one, so that the script
resumes; `--fresh` forgets them. `--install` copies the tables into `docs/trust.md`.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from demo import derangement, put_between_marks
from trust_inputs import SPOILT, cohorts, foreign, spoilt
from wsi_mivpg.captioner import CaseBags, Generated, SlideCaptioner, read_case
from wsi_mivpg.cli.calibrate import read_case_of
from wsi_mivpg.cli.calibrate_fields import judged_fields
from wsi_mivpg.cli.case_trust import draw_texts, sentences_of
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.evaluation.clinical import diagnosis_is_right, is_right
from wsi_mivpg.prompting import load_schema
from wsi_mivpg.trust import JudgedField, TrustGates, Written, assess, choose, load_gates, pooled
from wsi_mivpg.trust.distribution import fit_training_cases
from wsi_mivpg.trust.figures import auroc, calibration_error, reliability, risk_coverage

BEGIN = "<!-- results: written by benchmarks/trust.py -->"
GATES = ("image dependence", "distribution", "agreement")
RIGHT, SWAPPED = "own slide", "another slide's report"
SCHEMA = "virtual-biopsy"
BATCH, ROWS = 8, 32
"""Cases whose texts are drawn together, and rows of the language model at a time."""


def main() -> None:
    """Measure what has no row yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/trust"))
    parser.add_argument("--model", type=Path, default=Path("wsi_mivpg/demo_model"))
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    both = {"type": int, "nargs": 2, "metavar": ("RENDERED", "LUNG")}
    parser.add_argument("--train", default=(150, 120), help="training slides, as the model had them", **both)
    parser.add_argument("--val", default=(60, 42), help="validation slides, to calibrate on", **both)
    parser.add_argument("--cases", type=int, default=40, help="held-out virtual slides")
    parser.add_argument("--samples", type=int, default=0, help="further texts of each case, for agreement")
    parser.add_argument("--calibrate", action="store_true", help="calibrate the model on the validation cases first")
    parser.add_argument("--fresh", action="store_true", help="measure all rows again")
    parser.add_argument("--install", action="store_true", help="copy the tables into docs/trust.md")
    arguments = parser.parse_args()
    data = arguments.out / "data"
    cases = cohorts(data, arguments.shared, arguments.train, arguments.val, arguments.cases)
    if arguments.calibrate:
        command = [sys.executable, "-m", "wsi_mivpg", "calibrate", str(data / "cases.jsonl"), "--split", "val"]
        options = ["--model", str(arguments.model), "--samples", str(arguments.samples), "--fields", SCHEMA]
        subprocess.run([*command, *options], check=True)
    rows_file = arguments.out / "rows.jsonl"
    if arguments.fresh or arguments.calibrate:
        rows_file.unlink(missing_ok=True)
    gates = load_gates(arguments.model)
    if gates is None:
        sys.exit(f"{arguments.model} was never calibrated; pass --calibrate")
    held_out = [case for case in cases if case.split == "test"]
    captioner = SlideCaptioner.from_pretrained(arguments.model)
    rows = measured(captioner, arguments, gates, held_out, rows_file)
    values = field_values(captioner, gates, held_out)
    parts = [detection(rows), sentences(rows), fields(values), *([crossed(cases)] if min(arguments.train) else [])]
    text = "\n\n".join([*parts, _facts(gates)])
    curves = _curves(rows, values)
    (arguments.out / "tables.md").write_text(text)
    (arguments.out / "reliability.json").write_text(json.dumps(curves, indent=1))
    draw_curves(curves, arguments.out / "trust-confidence.png")
    print(text)
    if arguments.install:
        said = "Reliability, and risk over coverage, of the confidence of sentences and fields"
        put_between_marks(Path("docs/trust.md"), f"{text}\n\n![{said}](images/trust-confidence.png)\n", BEGIN)
        shutil.copyfile(arguments.out / "trust-confidence.png", "docs/images/trust-confidence.png")


def measured(
    captioner: SlideCaptioner, arguments: Any, gates: TrustGates, held_out: list[Case], rows_file: Path
) -> list[dict[str, Any]]:
    """Put every condition's cases before the gates, and keep a row for each report."""
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.is_file() else []
    own = [read_case_of(captioner, case) for case in held_out]
    conditions: list[tuple[str, list[CaseBags], bool]] = [(RIGHT, own, False), (SWAPPED, own, True)]
    conditions += [(how, [spoilt(bags, how, place) for place, bags in enumerate(own[::4])], False) for how in SPOILT]
    conditions += [
        (kind, found, False) for kind, found in foreign(arguments.out / "data", arguments.shared, held_out).items()
    ]
    references = {case.case_id: case.reports for case in held_out}
    other = derangement([bags.case_id for bags in own], 0)
    texts: dict[str, list[Generated]] = {}
    with rows_file.open("a") as kept:
        for condition, found, swapped in conditions:
            known = {row["case"] for row in rows if row["condition"] == condition}
            for start in range(0, len(found), BATCH):
                batch = [
                    bags for bags in found[start : start + BATCH] if condition == RIGHT or bags.case_id not in known
                ]
                if swapped:
                    drawn = [texts[other[bags.case_id]] for bags in batch]
                else:
                    drawn = draw_texts(captioner, batch, arguments.samples, ROWS, 0)
                for bags, of_case in zip(batch, drawn, strict=True):
                    if condition == RIGHT:
                        texts[bags.case_id] = of_case
                    if bags.case_id in known:
                        continue
                    row = {"condition": condition, "case": bags.case_id, "tiles": len(bags)}
                    row |= assessed(captioner, gates, bags, of_case, references.get(bags.case_id, ()))
                    rows.append(row)
                    kept.write(json.dumps(row) + "\n")
                    kept.flush()
            print(f"{condition}: {len(found)} cases", file=sys.stderr, flush=True)
    return rows


def assessed(
    captioner: SlideCaptioner, gates: TrustGates, bags: CaseBags, drawn: list[Generated], references: Sequence[str]
) -> dict[str, Any]:
    """Return margins of all gates, and the sentences' confidence and truth, without samples and with them."""
    place, agreed = choose([one.text for one in drawn])
    row: dict[str, Any] = {}
    texts: list[tuple[str, Generated, list[Generated]]] = [("alone", drawn[0], [])]
    if len(drawn) > 1:
        texts.append(("sampled", drawn[place], drawn))
    for name, made, samples in texts:
        cut = sentences_of(captioner, made.token_ids, made.text)
        others = [one for one in samples if one is not made]
        written = Written(
            token_ids=made.token_ids,
            sentences=tuple(text for text, _ in cut),
            tokens=tuple(tokens for _, tokens in cut),
            samples=[[text for text, _ in sentences_of(captioner, one.token_ids, one.text)] for one in others] or None,
            agreement=agreed if others else None,
        )
        found = assess(captioner, gates, bags, written)
        row[name] = {
            "text": made.text,
            "values": {gate.name: gate.value for gate in found.gates},
            "margins": {gate.name: gate.margin for gate in found.gates},
            "supported": found.supported,
            "confidence": found.confidence,
            "assessable": found.assessable,
            "diagnosis_right": diagnosis_is_right(made.text, references) if references else None,
            "sentences_right": [is_right(text, references) for text, _ in cut] if references else [],
        }
    return row


def detection(rows: list[dict[str, Any]]) -> str:
    """Return the table of what is told from right reports, and how many right reports are refused.

    Another slide's report that has the diagnosis of this one is right by the rules that "right" means everywhere here:
    it has a row of its own and is no part of the sum.
    """
    right = [row for row in rows if row["condition"] == RIGHT and row["alone"]["diagnosis_right"]]
    sampled = any("sampled" in row for row in rows)
    columns = [*GATES, "combined", *(["combined, with samples"] if sampled else [])]
    header = ["input", "n", *columns, "refused", *(["refused with samples"] if sampled else [])]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["condition"] != RIGHT:
            groups.setdefault(_kind(row), []).append(row)
    same = groups.pop(f"{SWAPPED}, the same diagnosis", [])
    shown = [*groups.items(), ("**all of these**", [row for found in groups.values() for row in found])]
    if same:
        shown.append((f"{SWAPPED}, the same diagnosis (not among them)", same))
    for kind, found in shown:
        figures = [_shown(_auroc(right, found, column)) for column in columns]
        refused = [f"{_refused(found, how):.0%}" for how in (("alone", "sampled") if sampled else ("alone",))]
        lines.append(f"| {kind} | {len(found)} | {' | '.join([*figures, *refused])} |")
    said = f"Of {len(right)} held-out reports with the right diagnosis {_count_refused(right, 'alone')} are refused"
    with_samples = f", with samples {_count_refused(right, 'sampled')}" if sampled else ""
    return "\n".join([*lines, "", f"{said}{with_samples}."])


def _kind(row: dict[str, Any]) -> str:
    if row["condition"] != SWAPPED:
        return str(row["condition"])
    return f"{SWAPPED}, {'the same' if row['alone']['diagnosis_right'] else 'another'} diagnosis"


def _count_refused(rows: list[dict[str, Any]], how: str) -> int:
    return sum(not row[how]["supported"] for row in rows if how in row)


def _refused(rows: list[dict[str, Any]], how: str) -> float:
    return _count_refused(rows, how) / max(sum(how in row for row in rows), 1)


def _auroc(right: list[dict[str, Any]], found: list[dict[str, Any]], column: str) -> float:
    """AUROC of one gate, or of all together by the smallest of their margins: two without samples, three with them."""
    how = "sampled" if column in ("agreement", "combined, with samples") else "alone"

    def worse(rows: list[dict[str, Any]]) -> list[float]:
        margins = [row[how]["margins"] for row in rows if how in row]
        return [-(min(one.values()) if column.startswith("combined") else one[column]) for one in margins]

    return auroc(worse(found), worse(right))


def _shown(figure: float) -> str:
    return "–" if np.isnan(figure) else f"{figure:.3f}"


def sentences(rows: list[dict[str, Any]]) -> str:
    """Return how well the confidence of held-out sentences is calibrated, and what it is worth."""
    shares = (1.0, 0.75, 0.5, 0.25)
    header = ["confidence", "sentences", "right", "calibration error", "AUROC"]
    header += [f"wrong of the surest {share:.0%}" for share in shares]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    said = []
    for how, name in (("alone", "without samples"), ("sampled", "with samples")):
        confidence, labels = _sentences(rows, how)
        if not labels:
            continue
        risks = risk_coverage(confidence, labels)
        wrong = " | ".join(f"{risks[max(round(share * len(risks)), 1) - 1][1]:.0%}" for share in shares)
        lines.append(
            f"| {name} | {len(labels)} | {np.mean(labels):.0%} | {calibration_error(confidence, labels):.3f} | "
            f"{_shown(_area(confidence, labels))} | {wrong} |"
        )
        bins = "; ".join(
            f"{one.confidence:.2f} → {one.right:.2f} ({one.count})" for one in reliability(confidence, labels)
        )
        said.append(f"Reliability {name}, mean confidence → share right (sentences): {bins}.")
    return "\n".join([*lines, "", *said])


def field_values(captioner: SlideCaptioner, gates: TrustGates, held_out: list[Case]) -> list[tuple[JudgedField, float]]:
    """Fill the schema for the held-out slides; return each value that could be judged, with its confidence."""
    schema = load_schema(SCHEMA)
    known = gates.fields.get(schema.fingerprint)
    if known is None:
        sys.exit(f"the model was calibrated without --fields {SCHEMA}; pass --calibrate")
    found = []
    for start in range(0, len(held_out), BATCH):
        batch = [(case, read_case_of(captioner, case)) for case in held_out[start : start + BATCH]]
        for one in judged_fields(captioner, batch, schema):
            confidence = known.of(one.name, one.probability)
            if confidence is not None:
                found.append((one, confidence))
    return found


def fields(values: list[tuple[JudgedField, float]]) -> str:
    """Return how well fields' probabilities are calibrated: the model's own, and what calibration makes of them."""
    header = ["field", "values", "right", "the model's own probability", "its calibration error", "AUROC"]
    header += ["confidence", "its calibration error", "AUROC"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    names = list(dict.fromkeys(one.name for one, _ in values))
    for name in [*names, "**all**"]:
        chosen = [pair for pair in values if pair[0].name == name or name not in names]
        right = [one.right for one, _ in chosen]
        cells = [f"{len(chosen)}", f"{np.mean(right):.0%}"]
        for scores in ([one.probability for one, _ in chosen], [confidence for _, confidence in chosen]):
            cells += [f"{np.mean(scores):.2f}", f"{calibration_error(scores, right):.3f}", _shown(_area(scores, right))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    pair = _judged(values)
    bins = "; ".join(f"{one.confidence:.2f} → {one.right:.2f} ({one.count})" for one in reliability(*pair))
    return "\n".join([*lines, "", f"Reliability of fields, mean confidence → share right (values): {bins}."])


def _judged(values: list[tuple[JudgedField, float]]) -> tuple[list[float], list[bool]]:
    return [confidence for _, confidence in values], [one.right for one, _ in values]


def _area(scores: Sequence[float], right: Sequence[bool]) -> float:
    """How well scores tell right from wrong."""
    pairs = list(zip(scores, right, strict=True))
    return auroc([one for one, good in pairs if good], [one for one, good in pairs if not good])


def crossed(cases: list[Case]) -> str:
    """Return how the distribution gate tells the cohorts apart when the model's training slides are of one alone."""
    rows: dict[tuple[str, str], list[Any]] = {}
    for case in cases:
        cohort = case.case_id.split("-")[0]
        rows.setdefault((cohort, str(case.split)), []).append(pooled(read_case(case.case_id, _bags(case))))
    lines = ["| trained on | foreign | n | AUROC of the distribution gate |", "|---|---|---|---|"]
    for own, other in (("rendered", "lung"), ("lung", "rendered")):
        fitted = fit_training_cases(rows[own, "train"])
        near, far = (fitted.mahalanobis(np.stack(rows[name, "test"])) for name in (own, other))
        lines.append(f"| {own} | {other} | {len(near)} + {len(far)} | {auroc(far, near):.3f} |")
    return "\n".join(lines)


def _bags(case: Case) -> list[Any]:
    from wsi_mivpg.bags import FeatureBag

    return [FeatureBag.open(path) for path in case.bag_paths]


def _sentences(rows: list[dict[str, Any]], how: str) -> tuple[list[float], list[bool]]:
    pairs = [
        (confidence, right)
        for row in rows
        if row["condition"] == RIGHT and how in row
        for confidence, right in zip(row[how]["confidence"], row[how]["sentences_right"], strict=True)
        if confidence is not None
    ]
    return [one for one, _ in pairs], [right for _, right in pairs]


def _curves(rows: list[dict[str, Any]], values: list[tuple[JudgedField, float]]) -> dict[str, Any]:
    found = {how: _sentences(rows, how) for how in ("alone", "sampled")} | {"fields": _judged(values)}
    return {
        how: {"reliability": [asdict(one) for one in reliability(*pair)], "risk_coverage": risk_coverage(*pair)}
        for how, pair in found.items()
    }


def draw_curves(curves: dict[str, Any], path: Path) -> None:
    """Draw reliability, and risk over coverage, of sentences without samples and with them, and of fields."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
    drawn = (
        ("alone", "sentences, without samples", "o-"),
        ("sampled", "sentences, with samples", "s--"),
        ("fields", "fields", "^-."),
    )
    for how, name, style in drawn:
        if not curves[how]["risk_coverage"]:
            continue
        bins = curves[how]["reliability"]
        left.plot([one["confidence"] for one in bins], [one["right"] for one in bins], style, label=name)
        shown, risk = zip(*curves[how]["risk_coverage"], strict=True)
        right.plot(shown, risk, style[1:], label=name)
    left.set(xlabel="mean confidence of a fifth of them", ylabel="share right", xlim=(0, 1), ylim=(0, 1.03))
    right.set(xlabel="share shown, surest first", ylabel="share of these wrong", xlim=(0, 1), ylim=(0, None))
    left.legend(frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _facts(gates: TrustGates) -> str:
    shut = ", ".join(f"{name} {one.shut:.3g} (usual {one.usual:.3g})" for name, one in gates.thresholds.items())
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in gates.facts.items())
    said = f"Calibration: {facts}. Thresholds: {shut}; sentences {gates.confidence.threshold:.2f}."
    for one in gates.fields.values():
        facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in one.facts.items())
        said += f" Fields of {one.schema}: {facts}; threshold {one.confidence.threshold:.2f}."
    return said


if __name__ == "__main__":
    main()
