import numpy as np
import pytest

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation import (
    evaluate,
    most_frequent,
    text_scores,
    tokenise,
)
from wsi_mivpg.evaluation.colour import colour_accuracy, colour_statistics

SQUAMOUS = "Lung, core biopsy: squamous cell carcinoma, involving approximately 35% of the tissue, in 2 foci."
BENIGN = "Lung, core biopsy: no evidence of malignancy. Normal lung only."
TRUTHS = {
    "a": {"organ": "Lung", "finding": "squamous_cell_carcinoma", "extent_percent": 33.0, "n_foci": 2},
    "b": {"organ": "Lung", "finding": "benign", "extent_percent": 0.0, "n_foci": 0},
}
REFERENCES = {"a": [SQUAMOUS], "b": [BENIGN, "Lung: negative."]}


def test_perfect_predictions_score_one_and_facts_are_right():
    result = evaluate({"a": SQUAMOUS, "b": BENIGN}, REFERENCES, TRUTHS)
    assert all(score == pytest.approx(1.0) for score in result.scores.values())
    assert list(result.scores) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"]
    assert "tok:words+numbers" in result.signature
    assert result.fields
    assert (result.fields.finding_accuracy, result.fields.organ_accuracy) == (1.0, 1.0)
    assert (result.fields.foci_accuracy, result.fields.extent_error) == (1.0, 2.0)


def test_a_text_that_states_nothing_is_wrong_and_not_left_out():
    result = evaluate({"a": "", "b": BENIGN}, REFERENCES, TRUTHS)
    assert result.fields
    assert result.fields.finding_accuracy == 0.5
    assert result.fields.finding_recall == {"benign": 1.0, "squamous_cell_carcinoma": 0.0}
    assert (result.fields.extent_stated, result.fields.extent_error) == (0.0, None)


def test_scores_agree_with_a_calculation_by_hand():
    scores = text_scores({"a": "the cat sat"}, {"a": ["the cat sat down"]})
    assert scores["bleu_1"] == pytest.approx(np.exp(1 - 4 / 3), abs=1e-6)
    precision, recall = 1.0, 0.75
    assert scores["rouge_l"] == pytest.approx((1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision))


def test_missing_and_extra_ids_are_both_listed():
    with pytest.raises(TextsError, match=r"no prediction for b; not in the references: c"):
        evaluate({"a": SQUAMOUS, "c": BENIGN}, REFERENCES)
    with pytest.raises(TextsError, match="truths"):
        evaluate({"a": SQUAMOUS, "b": BENIGN}, REFERENCES, {"a": TRUTHS["a"]})


def test_nothing_to_score_and_a_case_without_reference_are_errors():
    with pytest.raises(TextsError, match="no predictions"):
        evaluate({}, {})
    with pytest.raises(TextsError, match="no reference text for a"):
        evaluate({"a": SQUAMOUS}, {"a": []})


def test_tokens_are_words_and_numbers():
    assert tokenise("Lung, core-biopsy: 35% (2.5 mm)!") == ["lung", "core", "biopsy", "35", "2.5", "mm"]


def test_the_most_frequent_report_wins_and_ties_go_to_the_first():
    assert most_frequent(["b", "a", "a", "b", "c"]) == "b"
    with pytest.raises(TextsError):
        most_frequent([])


def test_colour_alone_finds_a_stain_and_not_noise():
    rng = np.random.default_rng(0)
    pink = rng.normal(200, 3, (20, 6))
    blue = rng.normal(150, 3, (20, 6))
    colours, findings = np.concatenate([pink, blue]), ["x"] * 20 + ["y"] * 20
    assert colour_accuracy(colours[::2], findings[::2], colours[1::2], findings[1::2]) == 1.0
    assert colour_accuracy(colours, ["x"] * 40, colours[:4], ["x", "y", "x", "y"]) == 0.5
    with pytest.raises(TextsError, match="0 test"):
        colour_accuracy(colours, findings, colours[:0], [])


def test_colour_statistics_are_mean_and_deviation_of_the_chosen_pixels():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0] = 100
    assert colour_statistics(pixels).tolist() == [50.0] * 6
    assert colour_statistics(pixels, np.array([[True, True], [False, False]])).tolist() == [100.0] * 3 + [0.0] * 3
    assert colour_statistics(pixels, np.zeros((2, 2), bool)).tolist() == [255.0] * 3 + [0.0] * 3
