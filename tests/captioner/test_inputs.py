"""A case's bags are read whole, drawn fairly, and packed without padding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.provenance import PROVENANCE, bag_on_disk
from wsi_mivpg.bags import FeatureBag, write_bag
from wsi_mivpg.captioner import CaseBags, draw, in_memory, pack, read_case
from wsi_mivpg.errors import BagError, ModelError


def _bag(path: Path, count: int, *, seed: int = 0, dim: int = 12) -> FeatureBag:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, dim)).astype(np.float16)
    grid = np.column_stack([np.arange(count), np.zeros(count)]).astype(np.int32)
    provenance = replace(PROVENANCE, slide_id=path.stem, feature_dim=dim)
    write_bag(path, features, grid * 443, np.ones(count, np.float32), provenance, grid=grid)
    return FeatureBag.open(path)


def _case(*sizes: int) -> CaseBags:
    """A case whose instances say which they are: slide and place."""
    slides = [
        torch.stack([torch.full((size,), float(slide)), torch.arange(size).float()], dim=1)
        for slide, size in enumerate(sizes)
    ]
    cells = torch.cat([torch.cat([slide[:, 1:], slide[:, 1:], slide[:, :1]], dim=1).long() for slide in slides])
    return in_memory("a", *slides, cells=cells)


def test_a_case_of_one_slide_is_left_in_its_file(tmp_path: Path) -> None:
    bag = _bag(tmp_path / "s1.h5", 20)
    case = read_case("c", [bag])
    assert isinstance(case.instances, np.memmap) or isinstance(case.instances.base, np.memmap)
    assert np.array_equal(case.instances, bag.features)
    assert case.slide_sizes == (20,)
    assert len(case) == 20


def test_slides_of_a_case_stand_one_after_another_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    bags = [_bag(tmp_path / f"s{n}.h5", count, seed=n) for n, count in enumerate((4, 0, 3))]
    case = read_case("c", bags)
    assert case.slide_sizes == (4, 3)
    assert torch.equal(case.instances, torch.from_numpy(np.concatenate([bags[0].features, bags[2].features])))
    assert case.instances.dtype == torch.float16
    assert case.cells is not None
    assert case.cells[:, 2].tolist() == [0] * 4 + [1] * 3
    assert torch.equal(case.cells[:4, :2], torch.from_numpy(bags[0].grid).long())


def test_cells_are_unknown_where_a_slides_places_are(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", np.zeros((3, 12), np.float32))
    bags = [_bag(tmp_path / "s1.h5", 4), FeatureBag.open(tmp_path / "bare.npy")]
    case = read_case("c", bags)
    assert case.cells is None
    assert case.instances.dtype == torch.float32
    assert pack([case])["coords"] is None


def test_a_case_without_tiles_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"case 'c' holds no tile \(it has no bag\)"):
        read_case("c", [])
    with pytest.raises(BagError, match=r"case 'c' holds no tile \(.*s1\.h5\)"):
        read_case("c", [bag_on_disk(tmp_path / "s1.h5", count=0)])
    with pytest.raises(BagError, match="case 'c' holds no tile"):
        in_memory("c", torch.zeros(0, 3))


def test_slides_of_different_widths_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"'c'.*s1\.h5 has features of width 12 and .*s2\.h5 of 8"):
        read_case("c", [_bag(tmp_path / "s1.h5", 2), _bag(tmp_path / "s2.h5", 2, dim=8)])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 60), st.integers(0, 5))
def test_a_draw_is_fair_and_leaves_no_place_empty(sizes: list[int], limit: int, seed: int) -> None:
    drawn = draw(_case(*sizes), limit, np.random.default_rng(seed))
    assert len(drawn) == len(drawn.instances) == min(limit, sum(sizes))
    taken = [int((drawn.instances[:, 0] == slide).sum()) for slide in range(len(sizes))]
    assert drawn.slide_sizes == tuple(count for count in taken if count)
    # Fair: who gives fewer than another, by more than the one that chance may give, gives all it has.
    for count, size in zip(taken, sizes, strict=True):
        assert count == size or count >= max(taken) - 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 60))
def test_a_draw_repeats_nothing_keeps_the_order_and_takes_the_cells_along(sizes: list[int], limit: int) -> None:
    drawn = draw(_case(*sizes), limit, np.random.default_rng(0))
    pairs = [tuple(pair) for pair in drawn.instances.long().tolist()]
    assert pairs == sorted(set(pairs))
    assert drawn.cells is not None
    assert drawn.cells.tolist() == [[place, place, slide] for slide, place in pairs]


def test_a_small_slides_unused_share_goes_to_the_others() -> None:
    drawn = draw(_case(2, 50, 100), 62, np.random.default_rng(0))
    assert drawn.slide_sizes == (2, 30, 30)


def test_every_instance_of_a_slide_is_drawn_as_often_as_any_other() -> None:
    case, times, counts = _case(5, 10), 3000, torch.zeros(10)
    rng = np.random.default_rng(1)
    for _ in range(times):
        drawn = draw(case, 6, rng)
        counts += torch.bincount(drawn.instances[drawn.instances[:, 0] == 1, 1].long(), minlength=10)
    assert counts / times == pytest.approx(np.full(10, 0.3), abs=0.04)


def test_the_same_generator_draws_the_same_instances_from_a_file_as_from_memory(tmp_path: Path) -> None:
    case = read_case("c", [_bag(tmp_path / "s1.h5", 20)])
    held = in_memory("c", torch.from_numpy(np.array(case.instances)))
    one, two = (draw(which, 7, np.random.default_rng(3)) for which in (case, held))
    assert torch.equal(one.instances, two.instances)
    assert not torch.equal(one.instances, draw(case, 7, np.random.default_rng(4)).instances)


def test_a_case_within_the_limit_is_not_drawn_from() -> None:
    case = _case(3, 4)
    assert draw(case, 7, np.random.default_rng(0)) is case
    with pytest.raises(ModelError, match="at most 0 instances of case 'a'"):
        draw(case, 0, np.random.default_rng(0))


def test_packed_cases_stand_one_after_another() -> None:
    packed = pack([_case(3, 2), _case(4)])
    assert packed["slide_sizes"] == [[3, 2], [4]]
    assert packed["instances"].shape == (9, 2)
    assert packed["coords"].shape == (9, 3)


def test_only_a_single_case_stays_mapped_and_only_if_asked(tmp_path: Path) -> None:
    case = read_case("c", [_bag(tmp_path / "s1.h5", 5)])
    assert pack([case], mapped=True)["instances"] is case.instances
    assert isinstance(pack([case])["instances"], torch.Tensor)
    assert isinstance(pack([case, case], mapped=True)["instances"], torch.Tensor)


def test_a_limited_case_is_read_the_same_each_time_and_says_which_of_its_instances_it_holds(tmp_path: Path) -> None:
    bags = [_bag(tmp_path / f"s{n}.h5", count, seed=n) for n, count in enumerate((4, 0, 300, 500))]
    whole, case = read_case("c", bags), read_case("c", bags, limit=104)
    assert case.slide_sizes == (4, 50, 50)
    assert case.rows is not None
    assert torch.equal(case.instances, whole.instances[case.rows])
    assert whole.cells is not None
    assert case.cells is not None
    assert torch.equal(case.cells, whole.cells[case.rows])
    assert case.rows.tolist() == sorted(set(case.rows.tolist()))
    assert case.rows[-1] > 600  # never the first ones only
    again, other = read_case("c", bags, limit=104), read_case("d", bags, limit=104)
    assert torch.equal(again.rows, case.rows)
    assert not torch.equal(other.rows, case.rows)
    assert read_case("c", bags, limit=804).rows is None
