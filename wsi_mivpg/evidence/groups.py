"""Groups of neighbouring tiles, and orders of tiles that know their places but not what they show."""

import torch
from torch import Tensor

from wsi_mivpg.captioner import CaseBags
from wsi_mivpg.mivpg.ppeg import NO_CELL


def neighbour_groups(case: CaseBags, at_most: int = 64) -> Tensor:
    """Divide a case into groups of neighbours, none of which reaches over two slides.

    Where cells are known these are squares of the grid, of the least side that gives at most `at_most` groups; else
    pieces of the bags' order. Instances without a cell are a group of their slide. A case of more slides than
    `at_most` has one group for each; a case of two instances or more has at least two groups.

    Returns:
        int64 (M,): the group of each instance, from 0.
    """
    slides = slide_of(case)
    if case.cells is None:
        places = torch.arange(len(case))
        per_slide = max(1, at_most // len(case.slide_sizes))
        starts = torch.tensor(case.slide_sizes).cumsum(0) - torch.tensor(case.slide_sizes)
        sizes = torch.tensor(case.slide_sizes)[slides]
        blocks = (places - starts[slides]) * per_slide // sizes
        return _numbered(torch.stack([slides, blocks], dim=1))
    cells = case.cells[:, :2]
    placed = (cells != NO_CELL).any(dim=1, keepdim=True)
    side, groups = 1, torch.arange(len(case))
    while len(groups.unique()) > at_most:
        side += 1
        squares = torch.where(placed, cells.div(side, rounding_mode="floor"), NO_CELL)
        groups = _numbered(torch.cat([slides[:, None], squares], dim=1))
        if int(groups.max()) + 1 <= len(case.slide_sizes):
            break
    return groups


def even_order(case: CaseBags) -> Tensor:
    """Order a case's instances so that any first part is spread evenly over every slide.

    Along a curve that visits neighbouring cells one after another (Morton's), places are taken as van der Corput's
    sequence does: the halves, the quarters, the eighths. Without cells the bag's order is the curve.

    Returns:
        int64 (M,): places of the instances.
    """
    slides = slide_of(case)
    keys = torch.empty(len(case), dtype=torch.float64)
    for slide, size in enumerate(case.slide_sizes):
        rows = (slides == slide).nonzero()[:, 0]
        if case.cells is not None:
            rows = rows[_morton(case.cells[rows, :2]).argsort(stable=True)]
        bits = max(1, (size - 1).bit_length())
        turned = torch.tensor([int(f"{place:0{bits}b}"[::-1], 2) for place in range(1 << bits)])
        keys[rows[turned[turned < size]]] = (torch.arange(size) + 0.5).double() / size
    return keys.argsort(stable=True)


def slide_of(case: CaseBags) -> Tensor:
    """Return the number of each instance's slide, int64 (M,)."""
    return torch.arange(len(case.slide_sizes)).repeat_interleave(torch.tensor(case.slide_sizes))


def _numbered(keys: Tensor) -> Tensor:
    numbers: Tensor = keys.unique(dim=0, return_inverse=True)[1]
    return numbers


def _morton(cells: Tensor) -> Tensor:
    """Interleave the bits of (n, 2) columns and rows; what has no cell counts as the first."""
    cells = cells.clamp(min=0)
    code = torch.zeros(len(cells), dtype=torch.long)
    for bit in range(20):
        code |= (cells[:, 0] >> bit & 1) << 2 * bit
        code |= (cells[:, 1] >> bit & 1) << 2 * bit + 1
    return code
