"""Ids meet exactly, and every id without a partner is accounted for."""

import pytest

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.joining import join
from wsi_mivpg.evaluation.readers import Gathered
from wsi_mivpg.evaluation.text_files import Entry


def gathered(source: str, **texts: str) -> Gathered:
    return Gathered(source, {k: (v,) for k, v in texts.items()}, {k: Entry(source, k, (v,)) for k, v in texts.items()})


def test_cases_come_in_the_order_of_the_references():
    pairs, report = join(gathered("p", b="1", a="2"), gathered("r", a="3", b="4"))
    assert (pairs.case_ids, pairs.predictions, pairs.references) == (("a", "b"), ("2", "1"), (("3",), ("4",)))
    assert report.lines() == []


def test_a_mismatch_is_refused_with_both_lists_and_the_way_out():
    with pytest.raises(TextsError, match=r"no prediction for b; not in the references: c; .*--missing"):
        join(gathered("p", a="1", c="2"), gathered("r", a="3", b="4"))


def test_missing_predictions_can_count_as_empty_texts_and_extra_ones_are_listed():
    pairs, report = join(gathered("p", a="1", c="2"), gathered("r", a="3", b="4"), "empty")
    assert pairs.predictions == ("1", "")
    assert (report.missing, report.extra, report.n_scored) == (("b",), ("c",), 2)
    assert report.lines() == ["1 without prediction, scored as empty texts: b", "1 without reference, left out: c"]


def test_missing_predictions_can_be_left_out_and_are_listed():
    pairs, report = join(gathered("p", a="1"), gathered("r", a="3", b="4"), "drop")
    assert (pairs.case_ids, report.missing, report.n_scored) == (("a",), ("b",), 1)
    assert report.lines() == ["1 without prediction, left out: b"]


def test_ids_that_differ_in_a_file_ending_are_pointed_out():
    with pytest.raises(TextsError, match=r"differ only in a file ending"):
        join(gathered("p", **{"s1": "x"}), gathered("r", **{"s1.tiff": "x"}))


def test_nothing_in_common_is_an_error_under_every_treatment():
    for treatment in ("refuse", "empty", "drop"):
        with pytest.raises(TextsError):
            join(gathered("p", a="1"), gathered("r", b="2"), treatment)


def test_an_empty_reference_is_named():
    with pytest.raises(TextsError, match="no reference text for b"):
        join(gathered("p", a="1", b="1"), gathered("r", a="3", b="  "))
