"""On real captions the trivial baselines score what is known of them: the table against which papers must be read.

PatchGastricADC22: 991 captions of 239 wordings. Over three stratified splits, one constant caption was measured at
BLEU-4 .335 ± .016, ROUGE-L .530 and CIDEr 2.05 ± .20, and the most frequent caption of the true subtype at BLEU-4
.648 ± .037, ROUGE-L .723 and CIDEr 5.60 ± .41, with another implementation (pycocoevalcap itself).
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from wsi_mivpg.evaluation.from_files import Inputs, evaluate_files
from wsi_mivpg.evaluation.study import Settings, Study


def split_of(rows: list[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """70 % of each subtype for training, the last fifth for testing."""
    rng = np.random.default_rng(seed)
    lines = []
    for subtype in sorted({row["subtype"] for row in rows}):
        group = [row for row in rows if row["subtype"] == subtype]
        order = rng.permutation(len(group))
        for rank, at in enumerate(order):
            share = rank / len(group)
            split = "train" if share < 0.7 else "val" if share < 0.8 else "test"
            lines.append({**group[at], "split": split})
    return lines


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "text" / "patchgastric_captions.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    found = []
    for seed in (1, 2, 3):
        folder = tmp_path_factory.mktemp("gastric")
        lines = split_of(rows, seed)
        (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (folder / "p.json").write_text(
            json.dumps({row["id"]: "adenocarcinoma" for row in lines if row["split"] == "test"})
        )
        inputs = Inputs(folder / "p.json", folder / "m.jsonl", "test", class_column="subtype")
        found.append(evaluate_files(inputs, Settings(n_resamples=100)))
    return found


@pytest.mark.parametrize(
    ("system", "metric", "known", "within"),
    [
        ("most frequent", "bleu_4", 0.335, 0.04),
        ("most frequent", "rouge_l", 0.530, 0.04),
        ("most frequent", "cider_d", 2.05, 0.4),
        ("most frequent of true subtype", "bleu_4", 0.648, 0.06),
        ("most frequent of true subtype", "rouge_l", 0.723, 0.05),
        ("most frequent of true subtype", "cider_d", 5.60, 0.8),
    ],
)
def test_trivial_baselines_score_what_was_measured_before(
    studies: list[Study], system: str, metric: str, known: float, within: float
):
    found = [next(one for one in study.systems if one.name == system).scores[metric].value for study in studies]
    assert np.mean(found) == pytest.approx(known, abs=within)


def test_the_constant_caption_beats_a_one_word_model_and_the_comparison_says_so(studies: list[Study]):
    for study in studies:
        assert (
            next(one for one in study.comparisons if one.system == "most frequent").differences["bleu_4"].favours == "B"
        )
