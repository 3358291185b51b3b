"""Groups are neighbours of one slide; an even order fills every slide evenly."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsi_mivpg.captioner import CaseBags, in_memory
from wsi_mivpg.evidence.groups import even_order, neighbour_groups, slide_of


def _case(sizes: list[int], columns: int, placed: bool = True) -> CaseBags:
    places = [torch.arange(size) for size in sizes]
    cells = [torch.stack([at % columns, at // columns, torch.full_like(at, k)], 1) for k, at in enumerate(places)]
    return in_memory("c", *(torch.zeros(size, 2) for size in sizes), cells=torch.cat(cells) if placed else None)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=5),
    columns=st.integers(1, 40),
    placed=st.booleans(),
    at_most=st.integers(2, 80),
)
def test_groups_are_few_of_one_slide_and_near(sizes: list[int], columns: int, placed: bool, at_most: int) -> None:
    case = _case(sizes, columns, placed)
    groups = neighbour_groups(case, at_most)
    count = int(groups.max()) + 1
    assert groups.shape == (len(case),)
    assert groups.unique().tolist() == list(range(count))
    assert count <= max(at_most, len(sizes))
    assert count > 1 or len(case) == 1
    for group in range(count):
        members = (groups == group).nonzero()[:, 0]
        assert len(slide_of(case)[members].unique()) == 1
        if case.cells is None:
            assert (members.diff() == 1).all()
        else:
            reach = case.cells[members, :2].max(0).values - case.cells[members, :2].min(0).values
            assert int(reach.max()) <= _least_side(case, at_most) - 1


def _least_side(case: CaseBags, at_most: int) -> int:
    assert case.cells is not None
    for side in range(1, 1000):
        squares = torch.cat([case.cells[:, :2] // side, case.cells[:, 2:]], dim=1)
        if len(squares.unique(dim=0)) <= max(at_most, len(case.slide_sizes)):
            return side
    raise AssertionError


def test_tiles_without_a_cell_are_a_group_of_their_slide() -> None:
    case = _case([300, 200], 20)
    assert case.cells is not None
    case.cells[[3, 7, 350], :2] = -1
    groups = neighbour_groups(case)
    assert groups[3] == groups[7]
    assert (groups == groups[3]).sum() == 2
    assert (groups == groups[350]).sum() == 1


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4), columns=st.integers(1, 30), placed=st.booleans())
def test_an_even_order_holds_each_tile_once_and_each_slide_in_proportion(
    sizes: list[int], columns: int, placed: bool
) -> None:
    case = _case(sizes, columns, placed)
    order = even_order(case)
    assert order.sort().values.tolist() == list(range(len(case)))
    first = slide_of(case)[order[: len(case) // 2]].bincount(minlength=len(sizes))
    assert torch.all((first - torch.tensor(sizes) * (len(case) // 2) / len(case)).abs() <= 1 + len(sizes) / 2)


def test_the_first_tiles_of_an_even_order_lie_further_apart_than_random_ones() -> None:
    case = _case([1024], 32)
    even = _nearest(case, even_order(case)[:64])
    generator = torch.Generator().manual_seed(0)
    random = [_nearest(case, torch.randperm(1024, generator=generator)[:64]) for _ in range(20)]
    assert even > max(random)
    assert even == 4.0  # 64 tiles fill a square of 32 x 32 at every fourth


def _nearest(case: CaseBags, rows: Tensor) -> float:
    assert case.cells is not None
    places = case.cells[rows, :2].double()
    apart = torch.cdist(places, places) + torch.eye(len(rows)) * 1e9
    return float(apart.min(dim=1).values.mean())
