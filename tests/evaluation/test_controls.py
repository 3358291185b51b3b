"""Baselines and controls: what they write, where they come from, and what is said of leaks and absences."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.provenance import PROVENANCE
from wsi_mivpg.bags import write_bag
from wsi_mivpg.errors import BagError, TextsError
from wsi_mivpg.evaluation.baselines import most_frequent_of_class, nearest_neighbour
from wsi_mivpg.evaluation.controls import baselines, mean_feature, read_system, unchanged_share
from wsi_mivpg.evaluation.joining import Pairs, join
from wsi_mivpg.evaluation.outputs import distinct_share, is_degenerate, length_statistics, output_metrics
from wsi_mivpg.evaluation.readers import gather


def write_lines(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def bag(path: Path, centre: list[float], n: int = 5) -> Path:
    features = np.tile(np.array(centre, np.float16), (n, 1))
    made = replace(PROVENANCE, slide_id=path.stem, feature_dim=len(centre))
    write_bag(path, features, np.arange(2 * n, dtype=np.int64).reshape(n, 2), np.ones(n, np.float32), made)
    return path


TRAIN = [
    {"id": "t1", "patient_id": "q1", "report": "Lung, biopsy: adenocarcinoma."},
    {"id": "t2", "patient_id": "q2", "report": "Lung, biopsy: adenocarcinoma."},
    {"id": "t3", "patient_id": "q3", "report": "Colon, biopsy: tubular adenoma."},
]
CASES = [
    {"id": "a", "patient_id": "p1", "report": "Lung, lobectomy: necrosis.", "site": "x"},
    {"id": "b", "patient_id": "p2", "report": "Colon, polypectomy: polyp.", "site": "y"},
]


def beside(tmp_path: Path, train=TRAIN, cases=CASES, **options):
    references = gather(write_lines(tmp_path / "r.jsonl", cases))
    predictions = gather(write_lines(tmp_path / "p.jsonl", [{"id": case["id"], "text": "x"} for case in cases]))
    pairs, _ = join(predictions, references)
    found = gather(write_lines(tmp_path / "t.jsonl", train)) if train else None
    return baselines(pairs, references, found, options.get("class_column"), options.get("bags"))


def test_the_most_frequent_reports_of_all_and_of_the_true_organ_stand_beside_the_model(tmp_path: Path):
    systems = {system.name: system.texts for system in beside(tmp_path).systems}
    assert systems == {
        "most frequent": ("Lung, biopsy: adenocarcinoma.",) * 2,
        "most frequent of true organ": ("Lung, biopsy: adenocarcinoma.", "Colon, biopsy: tubular adenoma."),
    }


def test_a_column_can_name_the_class_and_unknown_classes_are_said(tmp_path: Path):
    train = [{**line, "site": site} for line, site in zip(TRAIN, "xxz", strict=True)]
    found = beside(tmp_path, train, class_column="site")
    assert found.systems[1].name == "most frequent of true site"
    assert any("no training report has the site of b" in note for note in found.notes)
    with pytest.raises(TextsError, match=r"no 'nothing'.*--class-column"):
        beside(tmp_path, class_column="nothing")


def test_a_class_can_come_from_the_truth(tmp_path: Path):
    train = [{**line, "truth": {"finding": name}} for line, name in zip(TRAIN, "uvv", strict=True)]
    cases = [{**line, "truth": {"finding": "v"}} for line in CASES]
    assert beside(tmp_path, train, cases, class_column="finding").systems[1].texts[0] == TRAIN[1]["report"]


def test_without_training_reports_the_baselines_are_absent_with_the_way_out(tmp_path: Path):
    found = beside(tmp_path, None)
    assert found.systems == []
    assert all("--train" in why for why in found.absent.values())
    assert set(found.absent) == {"most frequent", "most frequent of class", "nearest neighbour"}


def test_the_nearest_neighbour_by_mean_feature_reads_bags_by_case_id(tmp_path: Path):
    folder = tmp_path / "bags"
    folder.mkdir()
    for name, centre in {"t1": [1, 0], "t2": [2, 0], "t3": [0, 2], "a": [0.1, 3], "b": [3, 0.2]}.items():
        bag(folder / f"{name}.h5", centre)
    found = beside(tmp_path, bags=folder)
    assert found.systems[-1].name == "nearest neighbour"
    assert found.systems[-1].texts == (TRAIN[2]["report"], TRAIN[1]["report"])
    (folder / "t3.h5").unlink()
    assert any("1 training cases without bag left out: t3" in note for note in beside(tmp_path, bags=folder).notes)
    (folder / "a.h5").unlink()
    assert beside(tmp_path, bags=folder).absent == {"nearest neighbour": "no bag of a"}


def test_bags_can_be_named_by_a_manifest(tmp_path: Path):
    for name, centre in {"t1": [1, 0], "t2": [2, 0], "t3": [0, 2], "a": [0.1, 3], "b": [3, 0.2]}.items():
        bag(tmp_path / f"{name}.h5", centre)
    train, cases = ([{**line, "bags": [f"{line['id']}.h5"]} for line in lines] for lines in (TRAIN, CASES))
    assert beside(tmp_path, train, cases).systems[-1].texts == (TRAIN[2]["report"], TRAIN[1]["report"])
    assert "--bags" in beside(tmp_path).absent["nearest neighbour"]


def test_the_mean_of_a_case_is_over_all_its_tiles(tmp_path: Path):
    paths = [bag(tmp_path / "x.h5", [1, 0], 3), bag(tmp_path / "y.h5", [0, 1], 1)]
    assert mean_feature(paths).tolist() == [0.75, 0.25]
    with pytest.raises(BagError, match=r"z\.h5 has features of 3 numbers"):
        mean_feature([*paths, bag(tmp_path / "z.h5", [1, 2, 3])])


def test_leaks_between_training_and_scored_cases_are_said(tmp_path: Path):
    train = [*TRAIN, {"id": "a", "patient_id": "p9", "report": "x"}, {"id": "t5", "patient_id": "p2", "report": "x"}]
    notes = " ".join(beside(tmp_path, train).notes)
    assert "LEAK: 1 scored cases are training cases too: a" in notes
    assert "LEAK: 1 patients are in training too: p2" in notes


def test_a_perfect_classifier_writes_its_classs_report():
    found = most_frequent_of_class(["u", "v", "v", "w"], ["1", "1", "1", "2"], {"a": "1", "b": "2", "c": "3"})
    assert found == {"a": "v", "b": "w", "c": "v"}


def test_the_nearest_neighbour_is_by_direction_after_scaling():
    train = np.array([[1.0, 100.0], [-1.0, 100.0], [0.0, 300.0]])
    found = nearest_neighbour(
        train, ["right", "left", "up"], {"a": np.array([0.9, 120.0]), "b": np.array([0.0, 900.0])}
    )
    assert found == {"a": "right", "b": "up"}
    with pytest.raises(TextsError, match=r"\[2, 3\]"):
        nearest_neighbour(train, ["", "", ""], {"a": np.zeros(3)})


PAIRS = Pairs(("a", "b"), ("x", "y"), (("x",), ("y",)))


def test_another_systems_file_must_have_the_same_cases(tmp_path: Path):
    short = gather(write_lines(tmp_path / "s.jsonl", [{"id": "a", "text": "z"}]))
    with pytest.raises(TextsError, match=r"no text for b; .*--missing empty"):
        read_system("s", "control", short, PAIRS, "refuse")
    system, notes = read_system("s", "control", short, PAIRS, "empty")
    assert system.texts == ("z", "")
    assert "1 without prediction" in notes[0]
    lines = [{"id": name, "text": name} for name in "abc"]
    with pytest.raises(TextsError, match="other cases, c"):
        read_system("s", "control", gather(write_lines(tmp_path / "l.jsonl", lines)), PAIRS, "refuse")


def test_copies_repeats_empty_texts_and_lengths_are_counted():
    texts = ("Lung:  X.", "a b a b a b", "", "new words here")
    pairs = Pairs(tuple("abcd"), texts, (("lung: x.",), ("y z",), ("y",), ("y",)))
    found = {metric.name: metric.overall() for metric in output_metrics(pairs, ["LUNG: X.", "other"])}
    assert found["exact_match"] == found["verbatim_in_train"] == 0.25
    assert found["degenerate_repeats"] == found["empty"] == 0.25
    assert found["length_mean"] == pytest.approx((2 + 6 + 0 + 3) / 4)
    assert found["length_ratio"] == pytest.approx(11 / 6)
    assert "verbatim_in_train" not in {metric.name for metric in output_metrics(pairs, None)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no no no", True),
        ("no no", False),
        ("in the lung in the lung in the lung", True),
        ("a b c d e f g h " * 3, True),
        ("a b c d e f g h i " * 3, False),  # nine words: a refrain, not a stutter
        ("x a a b b c c", False),
        ("", False),
    ],
)
def test_a_text_is_degenerate_when_words_follow_themselves_three_times(text: str, expected: bool):
    assert is_degenerate(text.split()) is expected


def test_length_and_variety_of_texts():
    assert length_statistics(["a", "a b c"]) == {
        "mean": 2,
        "sd": 1,
        "min": 1,
        "median": 2,
        "p95": pytest.approx(2.9),
        "max": 3,
    }
    assert distinct_share(["a", "A ", "b", "c"]) == 0.75
    assert unchanged_share(["a", "b"], ["A", "c"]) == 0.5


def test_a_bag_of_nan_is_named_rather_than_taken_for_the_first_neighbour(tmp_path: Path):
    with pytest.raises(BagError, match=r"a\.h5 has features that are NaN"):
        mean_feature([bag(tmp_path / "a.h5", [float("nan"), 1.0])])
