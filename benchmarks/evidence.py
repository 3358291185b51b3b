"""Which way of weighing tiles is true: against known regions, and by taking tiles out; on held-out virtual slides.

    python benchmarks/evidence.py [--cases 40] [--out out/evidence] [--table] [--install]

The demonstration model writes about slides that it has never seen, whose tissues are known. Cases are kept one by one,
so that the script resumes; slides and bags are kept too. The same seed gives the same table, the seconds aside.
`--install` copies the table into `docs/evidence.md`.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.draw import polygon2mask
from sklearn.metrics import average_precision_score

import wsi_mivpg
from demo import put_between_marks
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, read_case
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.label_map import MAP_CELL_PX
from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_cohort
from wsi_mivpg.cohorts.wording import FINDING_OF_LABEL, FINDING_PHRASES
from wsi_mivpg.evidence import METHODS, attribute, faithfulness, phrase_tokens, sentence_spans
from wsi_mivpg.evidence.groups import even_order

CONTROLS = ("random", "uniform", "feature norm")
MAPS = (*METHODS, *CONTROLS)
TARGETS = ("finding", "sentence")
FIGURES = ("pointing", "auprc", "deletion", "insertion", "better")
PAIRS = (("gradient", "attention"), ("gradient", "leave-out"), *((method, "random") for method in METHODS))
RESAMPLES = 2000
BEGIN = "<!-- results: written by benchmarks/evidence.py -->"


def main() -> None:
    """Do the cases that have no result yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40, help="slides with a finding; every fifth more has none")
    parser.add_argument("--out", type=Path, default=Path("out/evidence"))
    parser.add_argument("--seed", type=int, default=0, help="of the random orders and of the bootstrap")
    parser.add_argument("--table", action="store_true", help="write the table of what is there, and run nothing")
    parser.add_argument("--install", action="store_true", help="copy the table into docs/evidence.md")
    arguments = parser.parse_args()
    results = arguments.out / "cases"
    results.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        run(arguments.cases, arguments.out, results, arguments.seed)
    kept = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    table = as_markdown(kept, arguments.seed)
    (arguments.out / "table.md").write_text(table)
    print(table)
    if arguments.install:
        put_between_marks(Path("docs/evidence.md"), table, BEGIN)


def run(count: int, out: Path, results: Path, seed: int) -> None:
    """Compose, extract, write about and measure what is not there yet."""
    cohort = VirtualCohort(name="evidence", test=-(-count * 5 // 4), seed=20261123)
    cases = [
        case
        for case in compose_cohort(cohort, out / "data", splits=("test",))
        if (case.truth or {})["finding"] in FINDING_OF_LABEL.values()
    ][:count]
    bags = out / "data" / "bags"
    slides = [str(case.slide_paths[0]) for case in cases]
    command = [sys.executable, "-m", "wsi_mivpg.cli.main", "extract", *slides]
    subprocess.run([*command, "--out", str(bags), "--encoder", "efficientnet-lite0"], check=True)
    captioner = SlideCaptioner.from_pretrained(Path(wsi_mivpg.__file__).parent / "demo_model")
    for place, case in enumerate(cases):
        path = results / f"{case.case_id}.json"
        if not path.is_file():
            began = time.monotonic()
            path.write_text(json.dumps(measure(captioner, case, bags / f"{case.case_id}.h5", seed), indent=1))
            print(f"{place + 1}/{len(cases)} {case.case_id}: {time.monotonic() - began:.0f} s", flush=True)


def measure(captioner: SlideCaptioner, virtual: Case, bag_path: Path, seed: int) -> dict[str, Any]:
    """Let the model write about one case, and measure all maps of what it wrote."""
    bag = FeatureBag.open(bag_path)
    case = read_case(virtual.case_id, [bag])
    made = captioner.generate([case])[0]
    finding = (virtual.truth or {})["finding"]
    row: dict[str, Any] = {"case": virtual.case_id, "finding": finding, "text": made.text, "tiles": len(case)}
    at = phrase_place(made.text, finding)
    inside = tile_truth(virtual.slide_paths[0].with_suffix(".truth.json"), bag)
    row |= {"named": at is not None, "inside": int(inside.sum())}
    if at is None or not 0 < inside.sum() < len(inside):
        return row  # no true region to find, or nothing else
    sentence = next(
        span
        for span in sentence_spans(captioner.tokenizer, made.token_ids, made.text)
        if span.start <= at[0] < span.end
    )
    targets = [phrase_tokens(captioner.tokenizer, made.token_ids, made.text, *at), sentence.tokens]
    maps, seconds = draw_maps(captioner, case, made.token_ids, targets, seed)
    curves = faithfulness(
        captioner, case, made.token_ids, targets * len(MAPS), torch.cat([maps[name] for name in MAPS]), seed=seed
    )
    for number, name in enumerate(MAPS):
        for place, target in enumerate(TARGETS):
            weights, summary = maps[name][place].numpy(), curves[number * len(TARGETS) + place].summary()
            row[f"{name}|{target}"] = {
                "pointing": float(inside[int(weights.argmax())]),
                "auprc": float(average_precision_score(inside, weights)),
                "deletion": summary["deletion"],
                "insertion": summary["insertion"],
                "better": float(summary["deletion_interval"][0] > 0 and summary["insertion_interval"][0] > 0),
                "seconds": seconds.get(name),
            }
    return row


def draw_maps(
    captioner: SlideCaptioner, case: CaseBags, token_ids: tuple[int, ...], targets: list[range], seed: int
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return all methods' and controls' maps (targets, M), and the methods' seconds per target."""
    maps, seconds = {}, {}
    for method in METHODS:
        began = time.perf_counter()
        maps[method] = attribute(captioner, case, token_ids, targets, method)
        seconds[method] = (time.perf_counter() - began) / len(targets)
    noise = np.random.default_rng([seed, len(case), *case.case_id.encode()]).random(len(case))
    rank = torch.empty(len(case))
    rank[even_order(case)] = torch.arange(len(case), 0, -1, dtype=torch.float32)
    norms = torch.from_numpy(np.linalg.norm(np.asarray(case.instances, np.float32), axis=1))
    for name, control in zip(CONTROLS, (torch.from_numpy(noise).float(), rank, norms), strict=True):
        maps[name] = control.expand(len(targets), -1)
    return maps, seconds


def phrase_place(text: str, finding: str) -> tuple[int, int] | None:
    """Return where a text names a finding; the longest of its phrases, None if it has none."""
    for phrase in sorted(FINDING_PHRASES[finding], key=len, reverse=True):
        at = text.lower().find(phrase)
        if at >= 0:
            return at, at + len(phrase)
    return None


def tile_truth(truth_path: Path, bag: FeatureBag) -> np.ndarray:
    """Return bool (N,): which tiles lie at least half in the main finding's region."""
    truth = json.loads(truth_path.read_text(encoding="utf-8"))
    side = bag.tile_size_l0 / MAP_CELL_PX
    corners = bag.coords / MAP_CELL_PX
    mask = np.zeros(np.ceil(corners.max(axis=0) + side).astype(int)[::-1] + 1, bool)
    for feature in truth["regions"]["features"]:
        if FINDING_OF_LABEL.get(feature["properties"]["classification"]["name"]) == truth["finding"]:
            for ring in feature["geometry"]["coordinates"]:  # holes follow their outline: even-odd
                mask ^= polygon2mask(mask.shape, np.asarray(ring)[:, ::-1] / MAP_CELL_PX - 0.5)
    inside = [mask[round(y) : round(y + side), round(x) : round(x + side)].mean() for x, y in corners]
    return np.array(inside) >= 0.5


def as_markdown(rows: list[dict[str, Any]], seed: int) -> str:
    """Return the table: means over cases with 95 % bootstrap intervals over cases."""
    used = [row for row in rows if f"{MAPS[0]}|{TARGETS[0]}" in row]
    named = sum(row["named"] for row in rows)
    share = np.mean([row["inside"] / row["tiles"] for row in used]) if used else float("nan")
    lines = [
        f"{len(rows)} held-out virtual slides; the model names the finding of {named}; {len(used)} of these hold tiles "
        f"both in and outside its region, {np.mean([row['tiles'] for row in used]):.0f} tiles a slide, {share:.2f} of "
        "them inside. In brackets 95 % bootstrap intervals over slides. Deletion and insertion: nats beyond random "
        "orders, mean over the fractions.",
        "",
    ]
    for target in TARGETS:
        lines += [
            f"**Of the {'words that name the finding' if target == 'finding' else 'whole sentence'}**",
            "",
            "| map | pointing game | AUPRC | deletion | insertion | better than random | seconds |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in MAPS:
            kept = [row[f"{name}|{target}"] for row in used]
            cells = [shown([one[figure] for one in kept], seed) for figure in FIGURES]
            seconds = [one["seconds"] for one in kept if one["seconds"] is not None]
            cells.append(f"{np.median(seconds):.1f}" if seconds else "–")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += ["", "| on the same slides | pointing game | AUPRC | deletion | insertion |", "|---|---|---|---|---|"]
        for one, other in PAIRS:
            pairs = [(row[f"{one}|{target}"], row[f"{other}|{target}"]) for row in used]
            cells = [shown([a[figure] - b[figure] for a, b in pairs], seed) for figure in FIGURES[:4]]
            lines.append(f"| {one} − {other} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def shown(values: list[float], seed: int) -> str:
    """Return a mean with its interval."""
    array = np.array(values)
    means = array[np.random.default_rng(seed).integers(len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{array.mean():.2f} ({low:.2f} to {high:.2f})" if low < 0 else f"{array.mean():.2f} ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    main()
