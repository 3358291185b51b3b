"""PPEG, pyramid positional encoding: ``x + conv7(x) + conv5(x) + conv3(x)``, depthwise, where instances lie.

Where they lie is a `PpegLayout`: the slide's true tile grid, or TransMIL's square of the sequence. Both are sparse:
only blocks of cells that hold instances are convolved, some at a time, so that memory does not grow with the box.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from wsi_mivpg.errors import ModelError

NO_CELL = -1
"""Column and row of an instance that has no place, such as a ViT's class token."""
_REACH = 3  # of the widest kernel, 7 x 7
_BLOCK = 16  # side, in cells; 32 takes about the same time on tissue, and more room
_CPU_BUDGET, _GPU_BUDGET = 2**23, 2**27  # numbers gathered at a time; on a CPU, less is slower and more no faster


@dataclass(frozen=True)
class PpegLayout:
    """Where instances lie; made once per forward pass and shared by the layers.

    K places lie on one plane, on which slides are too far apart to touch. A cell's key is ``row * width + column``.

    Attributes:
        sources: int64, (K,): the instance in each place. The first `count` are distinct; the rest are repetitions,
            which are read but not written.
        count: number of instances that have a place.
        width: of the plane, in cells.
        keys: int64, (K,), ascending: the cells that are taken.
        order: int64, (K,): the place that takes each of them.
        corners: int64, (n,): keys of the top left cells of the blocks that hold places.
        slots: int64, (K,), ascending: block and cell within the block, ``block * 256 + row * 16 + column``.
        slot_order: int64, (K,): the place in each of them.
    """

    sources: Tensor
    count: int
    width: int
    keys: Tensor
    order: Tensor
    corners: Tensor
    slots: Tensor
    slot_order: Tensor

    def blocks(self, at_a_time: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield, for some blocks at a time: what lies in and around them, the places in them, and their slots.

        The first is int64 (n, 22, 22): the place in each cell of the blocks with a rim of 3; K where none is.
        """
        rim = torch.arange(-_REACH, _BLOCK + _REACH, device=self.keys.device)
        window = rim[:, None] * self.width + rim
        ends = range(0, len(self.corners) + at_a_time, at_a_time)
        bounds = torch.searchsorted(self.slots, self.slots.new_tensor(ends) * _BLOCK**2).tolist()
        for number, corners in enumerate(self.corners.split(at_a_time)):
            wanted = corners[:, None, None] + window
            at = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
            around = torch.where(self.keys[at] == wanted, self.order[at], len(self.keys))
            inside = slice(bounds[number], bounds[number + 1])
            yield around, self.slot_order[inside], self.slots[inside] - number * at_a_time * _BLOCK**2


class ZeroStartConv2d(nn.Conv2d):
    """A convolution that returns zero before training."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Ppeg(nn.Module):
    """TransMIL's pyramid of depthwise convolutions with biases; changes nothing before training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv7 = ZeroStartConv2d(dim, dim, 7, padding=3, groups=dim)
        self.conv5 = ZeroStartConv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv3 = ZeroStartConv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, instances: Tensor, layout: PpegLayout) -> Tensor:
        """(M_total, dim) -> (M_total, dim); instances without a place pass unchanged.

        Exact: the three convolutions are one with the sum of their kernels.
        """
        kernel = self.conv7.weight + F.pad(self.conv5.weight, (1,) * 4) + F.pad(self.conv3.weight, (2,) * 4)
        bias = sum(conv.bias for conv in (self.conv7, self.conv5, self.conv3) if conv.bias is not None)
        places = instances.index_select(0, layout.sources)
        read: Tensor = _Convolution.apply(places, kernel.to(places.dtype), layout)
        added = (read + bias)[: layout.count].to(instances.dtype)
        return instances.index_add(0, layout.sources[: layout.count], added)


def grid_layout(coords: Tensor | None, bag_sizes: Sequence[int]) -> PpegLayout:
    """Lay packed bags out on the true tile grids of their slides; the background is empty.

    Args:
        coords: int, (M_total, 2) or (M_total, 3): each instance's (column, row), or (column, row, slide of the bag),
            in units of the tiles' stride; `NO_CELL` for both where an instance has no place.
        bag_sizes: number of instances of each bag.

    Raises:
        ModelError: the cells are unknown, negative, of another shape, or shared by two instances of a slide.
    """
    if coords is None:
        raise _unknown("no coords were given")
    if coords.is_floating_point():
        raise ModelError(f"coords are {coords.dtype}; give (column, row) cells as int: coordinates // stride")
    if coords.ndim != 2 or coords.shape[1] not in (2, 3) or len(coords) != sum(bag_sizes):
        raise ModelError(
            f"coords have shape {tuple(coords.shape)}; PPEG reads ({sum(bag_sizes)}, 2) as (column, row), or a third "
            "number, the slide of the bag"
        )
    coords = coords.long()
    placed = (coords[:, :2] != NO_CELL).any(dim=1)
    if len(wrong := coords[placed & (coords < 0).any(dim=1)]):
        raise ModelError(f"an instance lies at {tuple(wrong[0].tolist())}; columns, rows and slides count from 0")
    sizes = torch.tensor(bag_sizes, device=coords.device)
    bags = torch.arange(len(sizes), device=coords.device).repeat_interleave(sizes)
    pairs = bags if coords.shape[1] == 2 else bags * (coords[:, 2].max() + 1) + coords[:, 2]
    slides = pairs.unique(return_inverse=True)[1]
    without = ~torch.isin(slides, slides[placed])
    if without.any():
        raise _unknown(f"a slide of bag {int(bags[without][0])} has none")
    return _layout(coords[placed, 0], coords[placed, 1], slides[placed], placed.nonzero()[:, 0], int(placed.sum()))


def sequence_layout(
    bag_sizes: Sequence[int], *, class_token: bool = False, device: torch.device | None = None
) -> PpegLayout:
    """Lay each bag out as TransMIL does, for bags whose places are unknown: the result depends on their order.

    A bag of n instances fills, row by row, a square of side ceil(sqrt(n)), which its first instances complete.

    Args:
        bag_sizes: number of instances of each bag.
        class_token: each bag begins with a class token, which has no place.
        device: where the instances are.
    """
    own, repeated, start = [], [], 0
    for bag, size in enumerate(bag_sizes):
        count = size - class_token
        side = math.isqrt(count - 1) + 1 if count else 0
        place = torch.arange(side * side, device=device)
        column, row = (place % side, place // side) if count else (place, place)
        source = start + class_token + (place % count if count else place)
        square = torch.stack([column, row, torch.full_like(place, bag), source])
        own.append(square[:, :count])
        repeated.append(square[:, count:])
        start += size
    columns, rows, bags, sources = torch.cat(own + repeated, dim=1)
    return _layout(columns, rows, bags, sources, sum(square.shape[1] for square in own))


def _layout(columns: Tensor, rows: Tensor, slides: Tensor, sources: Tensor, count: int) -> PpegLayout:
    """Lay (K,) places, each a cell of a slide, on one plane with the slides below each other."""
    height = (_REACH + 1) * (len(sources) + 1)  # of a slide without gaps; its width is no more
    width = height + 2 * _BLOCK  # so that a block's rim at the left is not the end of the row above
    column, row = _without_gaps(columns), _without_gaps(_without_gaps(rows) + slides * height)
    keys, order = (row * width + column).sort()
    if len(twice := order[1:][keys.diff() == 0]):
        raise ModelError(
            f"two instances of a slide share the cell ({columns[twice[0]]}, {rows[twice[0]]}); give each slide of a "
            "bag its own number, and cells in units of the tiles' stride"
        )
    corners = (row - row % _BLOCK) * width + column - column % _BLOCK
    corners, block = corners.unique(return_inverse=True)
    slots, slot_order = (block * _BLOCK**2 + row % _BLOCK * _BLOCK + column % _BLOCK).sort()
    return PpegLayout(sources, count, width, keys, order, corners, slots, slot_order)


def _without_gaps(positions: Tensor) -> Tensor:
    """Shrink the gaps between (K,) positions to what a kernel just cannot reach across; from 0, less than 4 K."""
    values, inverse = positions.unique(return_inverse=True)
    return F.pad(values.diff().clamp(max=_REACH + 1).cumsum(dim=0), (1, 0))[inverse]


class _Convolution(torch.autograd.Function):
    """A depthwise 7 x 7 convolution of (K, dim) places. Backward keeps no blocks: it gathers them again."""

    @staticmethod
    def forward(ctx: Any, places: Tensor, kernel: Tensor, layout: PpegLayout) -> Tensor:
        ctx.save_for_backward(places, kernel)
        ctx.layout = layout
        return _convolve(places, kernel, layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        places, kernel = ctx.saved_tensors
        kernel_grad = torch.zeros_like(kernel, dtype=torch.promote_types(kernel.dtype, torch.float32))
        padded = F.pad(places, (0, 0, 0, 1))
        for around, inside, slots in ctx.layout.blocks(_at_a_time(places)):
            block_grad = grad.new_zeros(len(around) * _BLOCK**2, grad.shape[1]).index_copy_(0, slots, grad[inside])
            block_grad = block_grad.view(len(around), _BLOCK, _BLOCK, -1).permute(0, 3, 1, 2)
            with torch.autocast(grad.device.type, enabled=False):
                kernel_grad += conv2d_weight(
                    padded[around].permute(0, 3, 1, 2), kernel.shape, block_grad, groups=len(kernel)
                )
        turned = kernel.flip(2, 3)
        return _convolve(grad, turned, ctx.layout), kernel_grad.to(kernel.dtype), None


def _convolve(places: Tensor, kernel: Tensor, layout: PpegLayout) -> Tensor:
    """(K, dim) and (dim, 1, 7, 7) -> (K, dim)."""
    padded, read = F.pad(places, (0, 0, 0, 1)), torch.empty_like(places)
    for around, inside, slots in layout.blocks(_at_a_time(places)):
        with torch.autocast(places.device.type, enabled=False):
            blocks = F.conv2d(padded[around].permute(0, 3, 1, 2), kernel, groups=len(kernel))
        read[inside] = blocks.permute(0, 2, 3, 1).flatten(0, 2)[slots]
    return read


def _at_a_time(places: Tensor) -> int:
    budget = _CPU_BUDGET if places.device.type == "cpu" else _GPU_BUDGET
    return max(1, budget // ((_BLOCK + 2 * _REACH) ** 2 * places.shape[1]))


def _unknown(what: str) -> ModelError:
    return ModelError(
        f"PPEG on the tile grid needs every tile's cell, and {what}; give the bag's grid, or coordinates // stride, or "
        "set ppeg to 'none'"
    )
