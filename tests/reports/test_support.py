import pytest

from tests.reports.pages import case, faithfulness
from wsi_mivpg.reports.report import Faithfulness
from wsi_mivpg.reports.support import pieces, supports, weight_in_words


def test_a_text_comes_back_from_its_pieces_without_the_white_space_around_it():
    texts = ("One (1).", "Two.", "Three")
    report, _ = case(texts=texts)
    longer = report.model_copy(update={"text": f" \n{report.text}\n "})
    sentences = [s.model_copy(update={"start": s.start + 2, "end": s.end + 2}) for s in report.sentences]
    moved = type(report).model_validate({**longer.model_dump(), "sentences": [s.model_dump() for s in sentences]})
    assert "".join(piece for piece, _ in pieces(moved)) == report.text
    assert [piece for piece, number in pieces(moved) if number] == list(texts)
    assert list(pieces(case(sentences=(), text=" plain ")[0])) == [("plain", None)]


def test_a_tile_of_several_sentences_is_there_once_and_knows_them_all():
    report, _ = case()
    found, tiles = supports(report)
    assert [support.key for support in found] == ["report", "sentence-1", "sentence-2", "sentence-3"]
    assert len(tiles) == 3
    shared = next(tile for tile in tiles if tile.tile.x == 800)
    assert {key: rank for key, (rank, _) in shared.supports.items()} == {
        "report": 3,
        "sentence-1": 1,
        "sentence-2": 2,
        "sentence-3": 2,
    }


@pytest.mark.parametrize(
    ("deletion", "insertion", "verdict"),
    [((0.1, 0.2), (0.1, 0.2), "better"), ((-0.1, 0.2), (0.1, 0.2), "random"), ((0.1, 0.2), (0.0, 0.2), "random")],
)
def test_only_a_map_that_wins_both_ways_is_called_better(
    deletion: tuple[float, float], insertion: tuple[float, float], verdict: str
):
    measured: Faithfulness = faithfulness(True).model_copy(
        update={"deletion_interval": deletion, "insertion_interval": insertion}
    )
    report, _ = case()
    sentence = report.sentences[0].model_copy(update={"faithfulness": measured})
    found, _ = supports(report.model_copy(update={"sentences": (sentence,)}))
    assert found[1].verdict == verdict


def test_weights_have_the_unit_of_their_method():
    assert weight_in_words(0.123, "attention") == ("12", "\u202f%")
    assert weight_in_words(0.0123, "attention") == ("1.2", "\u202f%")
    assert weight_in_words(0.0123, "gradient") == ("+0.012", "\u202fnats")
    assert weight_in_words(-1.5, "leave-out") == ("-1.5", "\u202fnats")
    assert weight_in_words(0.5, "another") == ("0.5", "")
