"""Time of a whole evaluation by preset, and of our text metrics beside pycocoevalcap's on the same tokens, in one run.

    python benchmarks/evaluate.py [--pairs 10000] [--presets words,sacrebleu,rouge-score]

Reports are written from invented truths, so that texts differ but repeat as reports do. A whole evaluation is one model
beside two baselines: metrics, clinical fields, 1,000 bootstrap draws, paired tests.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from wsi_mivpg.cohorts.wording import FINDING_PHRASES, write_report
from wsi_mivpg.evaluation.coco import coco_metrics
from wsi_mivpg.evaluation.controls import System
from wsi_mivpg.evaluation.joining import JoinReport, Pairs
from wsi_mivpg.evaluation.study import Settings, run_study
from wsi_mivpg.evaluation.tokenisers import TOKENISERS


def invented_truths(count: int) -> list[dict[str, Any]]:
    """Return truths as virtual biopsies have them."""
    rng = np.random.default_rng(0)
    return [
        {
            "organ": "Lung",
            "procedure": "core biopsy",
            "finding": list(FINDING_PHRASES)[int(rng.integers(5))],
            "extent_percent": float(rng.uniform(1, 95)),
            "n_foci": int(rng.integers(1, 7)),
            "touches": ["lymphoid"][: int(rng.integers(2))],
            "shares": {"parenchyma": 0.6, "stroma": 0.4},
        }
        for _ in range(count)
    ]


def seconds(function: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def whole_evaluation(preset: str, texts: list[str], pairs: Pairs) -> float:
    """Return the seconds of one evaluation with two baselines."""
    count = len(texts)
    others = [
        System("shuffled", "control", tuple(np.roll(texts, 1).tolist())),
        System("constant", "baseline", (texts[0],) * count),
    ]
    join = JoinReport(count, count, count, (), (), (), (), "refuse", False)
    model = System("model", "model", tuple(texts))
    return seconds(lambda: run_study(model, others, pairs, join, Settings((preset,)), train_texts=texts[: count // 2]))


def beside_the_toolkit(pairs: Pairs) -> tuple[float, float]:
    """Return seconds of BLEU, ROUGE-L and CIDEr-D: ours, tokenising included, and pycocoevalcap's on our tokens."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    tokens = TOKENISERS["words"]([*pairs.predictions, *(texts[0] for texts in pairs.references)])
    count = len(pairs)
    written = {row: [tokens[row]] for row in range(count)}
    wanted = {row: [tokens[count + row]] for row in range(count)}

    def theirs() -> None:
        Bleu(4).compute_score(wanted, written, verbose=0)
        Rouge().compute_score(wanted, written)
        Cider().compute_score(wanted, written)

    return seconds(lambda: coco_metrics(pairs, "words")), seconds(theirs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--presets", type=lambda text: text.split(","), default=["words", "sacrebleu", "rouge-score"])
    arguments = parser.parse_args()
    truths = invented_truths(arguments.pairs)
    texts, references = ([write_report(truth, rng) for truth in truths] for rng in map(np.random.default_rng, (1, 2)))
    ids = tuple(map(str, range(arguments.pairs)))
    pairs = Pairs(ids, tuple(texts), tuple((one,) for one in references))
    print(f"{arguments.pairs:,} pairs, {np.mean([len(text.split()) for text in texts]):.0f} words each\n")
    print("| preset | whole evaluation with two baselines |\n|---|---|")
    for preset in arguments.presets:
        print(f"| {preset} | {whole_evaluation(preset, texts, pairs):.1f} s |")
    ours, theirs = beside_the_toolkit(pairs)
    print(
        f"\nBLEU, ROUGE-L, CIDEr-D: ours {ours:.1f} s, pycocoevalcap {theirs:.1f} s: {theirs / ours:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
