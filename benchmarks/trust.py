"""What the trust gates catch: held-out virtual slides, right ones and spoilt, swapped and foreign ones.

    python benchmarks/trust.py [--out out/trust] [--model wsi_mivpg/demo_model] [--samples 0] [--calibrate] [--install]

`--calibrate` runs `wsi-mivpg calibrate` on the validation cases first, which writes into the model's folder. Rows are
kept one by one, so that the script resumes; `--fresh` forgets them. `--install` copies the tables into `docs/trust.md`.
"""

import argparse
import json
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
from wsi_mivpg.cli.case_trust import draw_texts, sentences_of
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.evaluation.clinical import diagnosis_is_right, is_right
from wsi_mivpg.trust import TrustGates, Written, assess, choose, load_gates, pooled
from wsi_mivpg.trust.distribution import fit_training_cases
from wsi_mivpg.trust.figures import auroc, calibration_error, reliability, risk_coverage

BEGIN = "<!-- results: written by benchmarks/trust.py -->"
GATES = ("image dependence", "distribution", "agreement")
RIGHT = "own slide"


def main() -> None:
    """Measure what has no row yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/trust"))
    parser.add_argument("--model", type=Path, default=Path("wsi_mivpg/demo_model"))
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cases", type=int, default=40, help="held-out virtual slides")
    parser.add_argument("--samples", type=int, default=0, help="further texts of each case, for agreement")
    parser.add_argument("--calibrate", action="store_true", help="calibrate the model on the validation cases first")
    parser.add_argument("--fresh", action="store_true", help="measure all rows again")
    parser.add_argument("--install", action="store_true", help="copy the tables into docs/trust.md")
    arguments = parser.parse_args()
    data = arguments.out / "data"
    cases = cohorts(data, arguments.shared, arguments.cases)
    if arguments.calibrate:
        command = [sys.executable, "-m", "wsi_mivpg", "calibrate", str(data / "cases.jsonl"), "--split", "val"]
        options = ["--model", str(arguments.model), "--samples", str(arguments.samples)]
        subprocess.run([*command, *options], check=True)
    rows_file = arguments.out / "rows.jsonl"
    if arguments.fresh or arguments.calibrate:
        rows_file.unlink(missing_ok=True)
    gates = load_gates(arguments.model)
    if gates is None:
        sys.exit(f"{arguments.model} was never calibrated; pass --calibrate")
    held_out = [case for case in cases if case.split == "test"]
    rows = measured(arguments, gates, held_out, rows_file)
    text = "\n\n".join([detection(rows), sentences(rows), crossed(cases), _facts(gates)])
    (arguments.out / "tables.md").write_text(text)
    (arguments.out / "reliability.json").write_text(json.dumps(_curves(rows), indent=1))
    print(text)
    if arguments.install:
        put_between_marks(Path("docs/trust.md"), text, BEGIN)


def measured(arguments: Any, gates: TrustGates, held_out: list[Case], rows_file: Path) -> list[dict[str, Any]]:
    """Put every condition's cases before the gates, and keep a row for each report."""
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.is_file() else []
    captioner = SlideCaptioner.from_pretrained(arguments.model)
    own = [read_case_of(captioner, case) for case in held_out]
    conditions: list[tuple[str, list[CaseBags], bool]] = [(RIGHT, own, False), ("another slide's report", own, True)]
    conditions += [(how, [spoilt(bags, how, place) for place, bags in enumerate(own[::4])], False) for how in SPOILT]
    conditions += [
        (kind, found, False) for kind, found in foreign(arguments.out / "data", arguments.shared, held_out).items()
    ]
    references = {case.case_id: case.reports for case in held_out}
    other = derangement([bags.case_id for bags in own], 0)
    texts: dict[str, list[Generated]] = {}
    with rows_file.open("a") as kept:
        for condition, found, swapped in conditions:
            for bags in found:
                known = [row for row in rows if (row["condition"], row["case"]) == (condition, bags.case_id)]
                if known and condition != RIGHT:
                    continue
                drawn = (
                    texts[other[bags.case_id]] if swapped else draw_texts(captioner, [bags], arguments.samples, 8, 0)[0]
                )
                if condition == RIGHT:
                    texts[bags.case_id] = drawn
                if known:
                    continue
                row = {"condition": condition, "case": bags.case_id, "tiles": len(bags)}
                row |= assessed(captioner, gates, bags, drawn, references.get(bags.case_id, ()))
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
    """Return the table of what is told from right reports, and how many right reports are refused."""
    right = [row for row in rows if row["condition"] == RIGHT and row["alone"]["diagnosis_right"]]
    header = ["input", "n", "image dependence", "distribution", "agreement", "combined", "refused"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    kinds = list(dict.fromkeys(row["condition"] for row in rows if row["condition"] != RIGHT))
    groups = [(kind, [row for row in rows if row["condition"] == kind]) for kind in kinds]
    groups.append(("**all of these**", [row for row in rows if row["condition"] in kinds]))
    for kind, found in groups:
        figures = [_shown(_auroc(right, found, gate)) for gate in (*GATES, None)]
        refused = np.mean([not row["alone"]["supported"] for row in found])
        lines.append(f"| {kind} | {len(found)} | {' | '.join(figures)} | {refused:.0%} |")
    alone = sum(not row["alone"]["supported"] for row in right)
    said = f"Of {len(right)} held-out reports with the right diagnosis {alone} are refused."
    return "\n".join([*lines, "", said])


def _auroc(right: list[dict[str, Any]], found: list[dict[str, Any]], gate: str | None) -> float:
    """AUROC of one gate, or of the two that need no samples together: the smaller of their margins."""

    how = "sampled" if gate == "agreement" else "alone"

    def worse(rows: list[dict[str, Any]]) -> list[float]:
        margins = [row[how]["margins"] for row in rows if how in row]
        return [-(min(one.values()) if gate is None else one[gate]) for one in margins]

    return auroc(worse(found), worse(right))


def _shown(figure: float) -> str:
    return "–" if np.isnan(figure) else f"{figure:.3f}"


def sentences(rows: list[dict[str, Any]]) -> str:
    """Return how well the confidence of held-out sentences is calibrated, and what it is worth."""
    lines = ["| confidence | sentences | right | calibration error | AUROC | wrong of all | wrong of the surest half |"]
    lines.append("|---|---|---|---|---|---|---|")
    for how in ("alone", "sampled"):
        confidence, labels = _sentences(rows, how)
        if not labels:
            continue
        risks = risk_coverage(confidence, labels)
        area = auroc(
            [one for one, good in zip(confidence, labels, strict=True) if good],
            [one for one, good in zip(confidence, labels, strict=True) if not good],
        )
        lines.append(
            f"| {'without samples' if how == 'alone' else 'with samples'} | {len(labels)} | {np.mean(labels):.0%} | "
            f"{calibration_error(confidence, labels):.3f} | {area:.3f} | {risks[-1][1]:.0%} | "
            f"{risks[len(risks) // 2 - 1][1]:.0%} |"
        )
    bins = "; ".join(
        f"{one.confidence:.2f} → {one.right:.2f} ({one.count})" for one in reliability(*_sentences(rows, "alone"))
    )
    return "\n".join([*lines, "", f"Reliability without samples, mean confidence → share right (sentences): {bins}."])


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


def _curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = {how: _sentences(rows, how) for how in ("alone", "sampled")}
    return {
        how: {"reliability": [asdict(one) for one in reliability(*pair)], "risk_coverage": risk_coverage(*pair)}
        for how, pair in found.items()
    }


def _facts(gates: TrustGates) -> str:
    shut = ", ".join(f"{name} {one.shut:.3g} (usual {one.usual:.3g})" for name, one in gates.thresholds.items())
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in gates.facts.items())
    return f"Calibration: {facts}. Thresholds: {shut}; sentences {gates.confidence.threshold:.2f}."


if __name__ == "__main__":
    main()
