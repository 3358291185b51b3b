"""The cost model computes what a hand computes, its bags have the size of real bags, and the page shows its tables."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import scale
from tests.provenance import PROVENANCE
from wsi_mivpg.bags import write_bag

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


@pytest.fixture(scope="module")
def figures():
    return scale.read_figures(scale.FIGURES)


def test_the_page_shows_what_the_script_computes(figures):
    page = PAGE.read_text(encoding="utf-8")
    assert scale.filled(page, scale.tables(figures)) == page, "run: python benchmarks/scale.py --write docs/scale.md"


def test_tiles_of_a_slide_are_its_tissue_over_a_tiles_area():
    # 224 px of 0.5 um are 112 um; 12.544 mm2 are 1,000 such squares.
    assert scale.Slide("x", tissue_mm2=12.544, file_gb=1).n_tiles == pytest.approx(1000)


def test_a_bags_size_is_that_of_a_real_bag(tmp_path):
    n_tiles, dim = 2000, scale.REGISTRY["uni2-h"].dim
    coords = np.stack([np.arange(n_tiles), np.zeros(n_tiles, int)], axis=1) * 224
    features, tissue = np.ones((n_tiles, dim), np.float16), np.ones(n_tiles, np.float32)
    path = tmp_path / "bag.h5"
    provenance = dataclasses.replace(PROVENANCE, feature_dim=dim)
    write_bag(path, features, coords, tissue, provenance, grid=(coords // 224).astype(np.int32))
    slide = scale.Slide("x", tissue_mm2=n_tiles * 0.112**2, file_gb=1)
    assert scale.bag_gb("uni2-h", slide) * 1e9 == pytest.approx(path.stat().st_size, rel=0.01)


def with_figure(figures, **values):
    return dataclasses.replace(figures, of=figures.of | values)


def test_the_slowest_part_sets_the_rate(figures):
    of = {"engine_share": 1.0, "cores_per_gpu": 10, "read_tiles_per_core_s": 100, "network_gb_s_per_gpu": 1000}
    plenty = with_figure(figures, **of)
    slide = figures.slides["typical"]
    assert scale.rate(plenty, "phikon", "H100", slide) == scale.Rate(1000, "reading")
    # 312 TFLOP/s x 0.35 over 608.3 GFLOP a tile
    giant = scale.rate(plenty, "h-optimus-1", "A100", slide)
    assert (giant.bound_by, giant.tiles_s) == ("GPU", pytest.approx(312_000 * 0.35 / 608.3))
    # 1 GB over 11,958 tiles, 0.9 of it read: 75 kB a tile, so that 7.5 MB/s are 100 tiles a second.
    slow = scale.rate(with_figure(plenty, network_gb_s_per_gpu=0.0075), "phikon", "H100", slide)
    assert (slow.bound_by, slow.tiles_s) == ("network", pytest.approx(100, rel=0.01))


def test_more_cores_help_only_while_reading_is_the_limit(figures):
    slide = figures.slides["typical"]
    more = with_figure(figures, cores_per_gpu=2 * figures.of["cores_per_gpu"])
    for encoder, helps in (("kaiko-vits16", True), ("h-optimus-1", False)):
        before, after = (scale.rate(one, encoder, "H100", slide).tiles_s for one in (figures, more))
        assert (after > before) == helps


def test_every_figure_says_where_it_is_from(figures):
    for row in figures.rows:
        assert row["origin"] in ("measured", "published", "assumed")
        assert row["note"]
    assert set(figures.gigaflops) <= set(scale.REGISTRY)


def test_a_page_whose_marks_are_not_the_tables_is_an_error():
    with pytest.raises(ValueError, match="there are tables"):
        scale.filled("<!-- table: other -->\n<!-- end -->", {"steps": "| |"})


def test_operations_counted_here_are_those_in_the_file(figures):
    from scale_measure import gigaflops_per_tile

    # A ViT-S/16 on 196 + 1 tokens: 12 blocks of 12 d^2 products a token and 2 n d for attention, and the patches.
    n, d = 197, 384
    by_hand = 2 * (12 * (12 * d * d * n + 2 * n * n * d) + 196 * 768 * d) / 1e9
    assert gigaflops_per_tile("kaiko-vits16") == pytest.approx(by_hand, rel=0.01)
    assert figures.gigaflops["kaiko-vits16"] == pytest.approx(by_hand, rel=0.01)
