"""The study of evidence knows which tiles are in the true region, holes and half tiles included."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from evidence import MAPS, TARGETS, as_markdown, phrase_place, tile_truth
from tests.provenance import PROVENANCE
from wsi_mivpg.bags import FeatureBag, write_bag

SIDE = 440  # level-0 px of a tile


def _bag(path: Path) -> FeatureBag:
    """Sixteen tiles in a grid of four columns."""
    grid = np.column_stack([np.arange(16) % 4, np.arange(16) // 4]).astype(np.int32)
    made = replace(PROVENANCE, tile_size_l0=float(SIDE))
    write_bag(path, np.zeros((16, 12), np.float16), grid * SIDE, np.ones(16, np.float32), made, grid=grid)
    return FeatureBag.open(path)


def _square(low: float, high: float) -> list[list[float]]:
    return [[low, low], [high, low], [high, high], [low, high], [low, low]]


def test_a_tile_is_inside_where_half_of_it_is_in_the_findings_region(tmp_path: Path) -> None:
    regions = [
        ("glandular_tumour", [_square(0, 4 * SIDE), _square(SIDE, 2.4 * SIDE)]),
        ("lymphoid", [_square(3 * SIDE, 4 * SIDE)]),
    ]
    features = [
        {"properties": {"classification": {"name": name}}, "geometry": {"type": "Polygon", "coordinates": rings}}
        for name, rings in regions
    ]
    truth = {"finding": "adenocarcinoma", "regions": {"type": "FeatureCollection", "features": features}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    inside = tile_truth(tmp_path / "truth.json", _bag(tmp_path / "s1.h5"))
    expected = np.ones((4, 4), bool)
    expected[1, 1] = False  # the hole; it covers 40 % of the tiles beside
    np.testing.assert_array_equal(inside.reshape(4, 4), expected)


def test_the_longest_phrase_of_a_finding_is_its_place() -> None:
    text = "Lung: invasive adenocarcinoma, 5%."
    assert phrase_place(text, "adenocarcinoma") == (6, 29)
    assert phrase_place(text, "necrosis") is None


def test_the_table_has_every_map_with_intervals_and_counts_what_was_left_out() -> None:
    figures = {"pointing": 1.0, "auprc": 0.5, "deletion": 2.0, "insertion": -1.0, "better": 0.0, "seconds": 3.0}
    row = {"named": True, "inside": 2, "tiles": 4} | {f"{name}|{at}": figures for name in MAPS for at in TARGETS}
    table = as_markdown([row, row, {"named": False, "inside": 1, "tiles": 4}], seed=0)
    assert "3 held-out virtual slides; the model names the finding of 2; 2 of these" in table
    assert table.count("| 1.00 (1.00–1.00) | 0.50 (0.50–0.50) | 2.00 (2.00–2.00) | -1.00 (-1.00 to -1.00) |") == 12
    assert table.count("| gradient − attention | 0.00 (0.00–0.00) |") == len(TARGETS)
