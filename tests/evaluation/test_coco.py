"""BLEU, ROUGE-L and CIDEr-D are those of the COCO toolkit itself, to 1e-9."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge

from wsi_mivpg.evaluation.coco import coco_metrics, lcs_length
from wsi_mivpg.evaluation.joining import Pairs

WORDS = [
    "no",
    "evidence",
    "of",
    "tumour",
    "in",
    "the",
    "core",
    "biopsy",
    ",",
    "adenocarcinoma",
    "grade",
    "2",
    "35",
    "%",
    "foci",
]


def random_pairs(seed: int, n: int, max_references: int = 1, longest: int = 30) -> Pairs:
    """Texts of few words, so that n-grams meet often; one prediction in ten is empty."""
    rng = np.random.default_rng(seed)

    def text(shortest: int) -> str:
        return " ".join(rng.choice(WORDS, int(rng.integers(shortest, longest))))

    written = tuple("" if rng.random() < 0.1 else text(1) for _ in range(n))
    wanted = tuple(tuple(text(1) for _ in range(int(rng.integers(1, max_references + 1)))) for _ in range(n))
    return Pairs(tuple(map(str, range(n))), written, wanted)


def by_toolkit(pairs: Pairs) -> dict[str, float]:
    gts = {name: list(texts) for name, texts in zip(pairs.case_ids, pairs.references, strict=True)}
    res = {name: [text] for name, text in zip(pairs.case_ids, pairs.predictions, strict=True)}
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    scores = {f"bleu_{order}": score for order, score in enumerate(bleu, 1)}
    scores["rouge_l"] = Rouge().compute_score(gts, res)[0]
    if len(pairs) > 1:
        scores["cider_d"] = Cider().compute_score(gts, res)[0]
        free = CiderScorer(n=4, sigma=1e9)  # a penalty this wide is none
        for name in pairs.case_ids:
            free += (res[name][0], gts[name])
        scores["cider_length_free"] = free.compute_score()[0]
    return scores


def ours(pairs: Pairs) -> dict[str, float]:
    return {metric.name: metric.overall() for metric in coco_metrics(pairs, "whitespace")}


@pytest.mark.parametrize("max_references", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_every_metric_is_the_toolkits_with_empty_hypotheses_and_several_references(seed: int, max_references: int):
    pairs = random_pairs(seed, 40, max_references)
    assert "" in pairs.predictions
    assert ours(pairs) == pytest.approx(by_toolkit(pairs), abs=1e-9, rel=1e-9)


def test_all_hypotheses_empty_is_the_toolkits_too():
    pairs = random_pairs(0, 5).written_by([""] * 5)
    assert ours(pairs) == pytest.approx(by_toolkit(pairs), abs=1e-9)


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["ab", "c"]), max_size=7).map(" ".join),
            st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=7).map(" ".join), min_size=1, max_size=3),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_any_small_set_of_texts_scores_as_in_the_toolkit(drawn: list[tuple[str, list[str]]]):
    names = tuple(map(str, range(len(drawn))))
    pairs = Pairs(names, tuple(one for one, _ in drawn), tuple(tuple(texts) for _, texts in drawn))
    assert ours(pairs) == pytest.approx(by_toolkit(pairs), abs=1e-9, rel=1e-9)


def test_each_case_by_itself_scores_as_the_toolkit_says():
    pairs = random_pairs(3, 30, 3)
    gts = {name: list(texts) for name, texts in zip(pairs.case_ids, pairs.references, strict=True)}
    res = {name: [text] for name, text in zip(pairs.case_ids, pairs.predictions, strict=True)}
    found = {metric.name: metric.per_case() for metric in coco_metrics(pairs, "whitespace")}
    np.testing.assert_allclose(found["bleu_4"], Bleu(4).compute_score(gts, res, verbose=0)[1][3], atol=1e-9)
    np.testing.assert_allclose(found["rouge_l"], Rouge().compute_score(gts, res)[1], atol=1e-9)
    np.testing.assert_allclose(found["cider_d"], Cider().compute_score(gts, res)[1], atol=1e-9)


def test_cider_of_one_case_is_undefined_and_says_why():
    metrics = {metric.name: metric for metric in coco_metrics(random_pairs(0, 1), "whitespace")}
    assert np.isnan(metrics["cider_d"].overall())
    assert "one case" in metrics["cider_d"].undefined
    assert not np.isnan(metrics["bleu_1"].overall())


def test_length_alone_takes_cider_d_away_and_not_its_length_free_form():
    reference = " ".join(f"w{i}" for i in range(20))
    longer = reference + " " + " ".join(f"x{i}" for i in range(30))
    pairs = Pairs(("a", "b"), (longer, "other"), ((reference,), ("other",)))
    per_case = {metric.name: metric.per_case()[0] for metric in coco_metrics(pairs, "whitespace")}
    assert per_case["cider_d"] == pytest.approx(per_case["cider_length_free"] * np.exp(-(30**2) / 72))
    assert per_case["cider_length_free"] > 5


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_common_subsequence_is_as_long_as_by_the_textbook(first: str, second: str):
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if one == other else max(table[i, j + 1], table[i + 1, j])
    assert lcs_length(first, second) == table[-1, -1]


def test_signatures_name_tokeniser_case_version_and_parameters():
    signatures = {metric.name: metric.signature for metric in coco_metrics(random_pairs(0, 3), "words")}
    assert all("tok:words+numbers|case:lower" in signature for signature in signatures.values())
    assert "beta:1.2" in signatures["rouge_l"]
    assert "sigma:6" in signatures["cider_d"]
    assert "pycocoevalcap-1.2" in signatures["bleu_4"]
