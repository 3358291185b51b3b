import json
from pathlib import Path

import numpy as np
import pytest

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation import (
    evaluate,
    load_predictions,
    load_references,
    load_texts,
    load_truths,
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


def test_texts_are_read_from_each_kind_of_file(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"case_id": "a", "text": "x"}\n\n{"id": "b", "reports": ["y", "z"]}\n')
    (tmp_path / "a.csv").write_text('\ufeffcase_id,report\na,"x, with comma"\na,second\n')
    (tmp_path / "a.json").write_text('{"a": "x", "b": ["y", "z"]}')
    assert load_texts(tmp_path / "a.jsonl") == {"a": ["x"], "b": ["y", "z"]}
    assert load_references(tmp_path / "a.csv") == {"a": ["x, with comma", "second"]}
    assert load_texts(tmp_path / "a.json") == {"a": ["x"], "b": ["y", "z"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"case_id": "a"}', "line 1 has none of text"),
        ("a.jsonl", '{"text": "a"}', "line 1 has no case_id"),
        ("a.jsonl", "\nnope", "line 2 is not JSON"),
        ("a.json", "[1]", "JSON list"),
        ("a.json", '{"a": 3}', "'a' is int"),
        ("a.txt", "x", r"\.txt is not read"),
        ("a.jsonl", '{"id": "a", "texts": ["x", "y"]}', "several for a"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(TextsError, match=message):
        load_predictions(tmp_path / name)


def test_a_missing_file_is_a_clear_error(tmp_path: Path):
    with pytest.raises(TextsError, match="cannot read texts"):
        load_texts(tmp_path / "none.json")


def test_truths_come_from_a_manifest_only_when_every_case_has_one(tmp_path: Path):
    path = tmp_path / "cohort.jsonl"
    lines = [json.dumps({"case_id": name, "reports": ["x"], "truth": truth}) for name, truth in TRUTHS.items()]
    path.write_text("\n".join(lines))
    assert load_truths(path) == TRUTHS
    path.write_text(lines[0] + '\n{"case_id": "c", "reports": ["x"], "truth": null}')
    assert load_truths(path) is None


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
