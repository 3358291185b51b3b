"""Train the demonstration model by its recipe and score it on held-out virtual slides, with its controls.

    python benchmarks/demo.py [--recipe pipelines/recipes/demo.yaml] [--out out/demo] [--install]

Steps that are done are kept, so the script resumes. `--install` copies the model into the package and the results
into `docs/model-card.md`. Everything is measured in this run; nothing is copied from elsewhere.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsi_mivpg.atomic import sha256_of
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner, in_memory
from wsi_mivpg.captioner.saving import TRUST_FILE
from wsi_mivpg.cohorts.case import Case, read_manifest
from wsi_mivpg.evaluation import Evaluation, evaluate, most_frequent
from wsi_mivpg.evaluation.colour import colour_accuracy, colour_statistics
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tissue import find_tissue
from wsi_mivpg.training.recipe import load_recipe

SYSTEMS = ("demo model", "demo model, another case's slide", "most frequent training report")
BEGIN, END = "<!-- results: written by benchmarks/demo.py -->", "<!-- end of results -->"
FIELDS = ("finding_accuracy", "extent_within_10", "extent_error", "foci_accuracy")


def main() -> None:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("pipelines/recipes/demo.yaml"))
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--install", action="store_true", help="copy the model and the results into the package")
    arguments = parser.parse_args()
    data = arguments.out / "data"
    train = [sys.executable, "-m", "wsi_mivpg.cli.main", "train", str(arguments.recipe)]
    subprocess.run([*train, "--out", str(arguments.out), "--data", str(data)], check=True)

    recipe = load_recipe(arguments.recipe)
    model_dir = arguments.out / "demo_model"
    SlideCaptioner.from_pretrained(arguments.out / "model").save_pretrained(model_dir, dtype=torch.float16)
    captioner = SlideCaptioner.from_pretrained(model_dir)
    results: dict[str, Any] = {"steps": recipe.optim.steps, "cohorts": {}}
    for cohort in recipe.data.cohorts:
        cases = read_manifest(data / f"{cohort['name']}.jsonl")
        results["cohorts"][cohort["name"]] = score_cohort(captioner, cases, arguments.out, recipe.seed)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    table = as_markdown(results)
    print(table)
    if arguments.install:
        install(model_dir, Path("wsi_mivpg/demo_model"))
        put_between_marks(Path("docs/model-card.md"), table)


def install(model_dir: Path, target: Path) -> None:
    """Copy the model into the package; trust gates of other weights go, as no report is written beside them."""
    target.mkdir(exist_ok=True)
    weights, gates = target / "model.safetensors", target / TRUST_FILE
    same = weights.is_file() and sha256_of(weights) == sha256_of(model_dir / weights.name)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(model_dir / name, target / name)
    if gates.exists() and not same:
        gates.unlink()
        print(f"{gates} was of other weights: calibrate with `python benchmarks/trust.py --calibrate --install`")


def put_between_marks(path: Path, table: str, begin: str = BEGIN) -> None:
    """Replace what stands between the results marks of a Markdown page."""
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{begin}\n\n{table}\n{END}{after}", encoding="utf-8")


def score_cohort(captioner: SlideCaptioner, cases: Sequence[Case], out: Path, seed: int) -> dict[str, Any]:
    """Score the model and its controls on the cohort's test cases."""
    train = [case for case in cases if case.split == "train"]
    test = [case for case in cases if case.split == "test"]
    references = {case.case_id: list(case.reports) for case in test}
    truths = {case.case_id: case.truth or {} for case in test}
    bags = {case.case_id: FeatureBag.open(case.bag_paths[0]).features for case in test}
    other = derangement([case.case_id for case in test], seed)
    started = time.perf_counter()
    right = write(captioner, [bags[case.case_id] for case in test])
    seconds = time.perf_counter() - started
    wrong = write(captioner, [bags[other[case.case_id]] for case in test])
    constant = most_frequent([case.reports[0] for case in train])
    ids = [case.case_id for case in test]
    texts = {
        SYSTEMS[0]: dict(zip(ids, right, strict=True)),
        SYSTEMS[1]: dict(zip(ids, wrong, strict=True)),
        SYSTEMS[2]: dict.fromkeys(ids, constant),
    }
    scores = {name: evaluate(predictions, references, truths) for name, predictions in texts.items()}
    colours = {split: [colours_of(case) for case in group] for split, group in (("train", train), ("test", test))}
    findings = {
        split: [(case.truth or {})["finding"] for case in group] for split, group in (("train", train), ("test", test))
    }
    folder = out / "texts"
    folder.mkdir(exist_ok=True)
    (folder / f"{test[0].case_id.split('-')[0]}.json").write_text(
        json.dumps(
            [{"id": i, "reference": references[i][0], **{n: t[i] for n, t in texts.items()}} for i in ids],
            indent=1,
        )
    )
    return {
        "train_cases": len(train),
        "test_cases": len(test),
        "references_per_case": len(test[0].reports),
        "seconds_per_report": round(seconds / len(test), 2),
        "chance_with_another_slide": round(
            float(np.mean([findings["test"].count(f) / len(test) for f in findings["test"]])), 3
        ),
        "signature": next(iter(scores.values())).signature,
        "colour_baseline_finding_accuracy": round(
            colour_accuracy(np.array(colours["train"]), findings["train"], np.array(colours["test"]), findings["test"]),
            3,
        ),
        "systems": {name: summary(score) for name, score in scores.items()},
    }


def write(captioner: SlideCaptioner, bags: Sequence[np.ndarray], batch: int = 8) -> list[str]:
    """Return the text that the model writes for each bag."""
    cases = [in_memory(str(place), torch.from_numpy(bag)) for place, bag in enumerate(bags)]
    return [made.text for made in captioner.generate(cases, batch_size=batch)]


def derangement(ids: Sequence[str], seed: int) -> dict[str, str]:
    """Give every case another case's slide: a random cycle through all of them."""
    order = np.random.default_rng(seed).permutation(len(ids))
    return {ids[a]: ids[b] for a, b in zip(order, np.roll(order, 1), strict=True)}


def colours_of(case: Case) -> np.ndarray:
    """Return the mean and deviation of RGB over a slide's tissue, float64 (6,)."""
    with open_slide(case.slide_paths[0]) as slide:
        mask = find_tissue(slide).mask
        pixels = slide.thumbnail(max(mask.shape))
    return colour_statistics(pixels, mask[: pixels.shape[0], : pixels.shape[1]])


def summary(score: Evaluation) -> dict[str, float | None]:
    """Return the figures of one system that the card shows."""
    fields = asdict(score.fields) if score.fields else {}
    figures = {name: fields.get(name) for name in FIELDS}
    return {**figures, "bleu_4": score.scores["bleu_4"], "rouge_l": score.scores["rouge_l"]}


def as_markdown(results: dict[str, Any]) -> str:
    """Return the results as one table per cohort."""
    lines = []
    for name, cohort in results["cohorts"].items():
        lines += [
            f"**{name}**: {cohort['test_cases']} held-out slides, {cohort['train_cases']} training slides, "
            f"{cohort['references_per_case']} reference wordings a case; {cohort['seconds_per_report']} s a report "
            f"from a bag, in batches of 8. Guessing from another case would be right in "
            f"{cohort['chance_with_another_slide']:.3f}.",
            "",
            "| system | main finding | extent within 10 points | mean extent error | foci | BLEU-4 | ROUGE-L |",
            "|---|---|---|---|---|---|---|",
        ]
        for system, row in cohort["systems"].items():
            cells = " | ".join("–" if value is None else f"{value:.3f}" for value in row.values())
            lines.append(f"| {system} | {cells} |")
        colour = cohort["colour_baseline_finding_accuracy"]
        lines += [f"| colour statistics + logistic regression | {colour:.3f} | – | – | – | – | – |", ""]
        lines += [f"Text metrics: `{cohort['signature']}`.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
