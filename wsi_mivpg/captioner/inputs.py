"""What a report model reads of a case: the instances of all its slides, drawn fairly where they are too many, packed.

Bags go in, tensors come out; it knows no adapter and no language model.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.errors import BagError, ModelError
from wsi_mivpg.mivpg.chunks import Bag, as_tensor
from wsi_mivpg.mivpg.ppeg import NO_CELL


@dataclass(frozen=True, eq=False)
class CaseBags:
    """One case.

    Attributes:
        case_id: its name in messages and results.
        instances: float (M, D), slide after slide: a tensor, or for a case of one slide an array, memory-mapped where
            the file allows it.
        slide_sizes: instances of each slide, which sum to M; slides without instances are left out.
        cells: int64 (M, 3): column, row and slide of each instance; ``None`` where a slide's places are unknown.
        rows: int64 (M,), ascending: which of all the bags' instances these are, where a limit left some out.
    """

    case_id: str
    instances: Bag
    slide_sizes: tuple[int, ...]
    cells: Tensor | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        return sum(self.slide_sizes)


def read_case(case_id: str, bags: Sequence[FeatureBag], limit: int | None = None) -> CaseBags:
    """Open a case's bags; those of a case with several slides are read into memory.

    Args:
        case_id: its name, which also decides what is drawn: the same instances each time.
        bags: of its slides.
        limit: most instances; where there are more, each slide gives a fair share (`draw`), and only these are read.

    Raises:
        BagError: there is no bag or no instance in any, a bag cannot be read, or feature widths differ.
        ModelError: the limit is below 1.
    """
    filled = [bag for bag in bags if len(bag)]
    if not filled:
        where = ", ".join(str(bag.path) for bag in bags) or "it has no bag"
        raise BagError(f"case {case_id!r} holds no tile ({where}); extract its slides, or leave it out")
    first = filled[0]
    for bag in filled:
        if bag.feature_dim != first.feature_dim:
            raise BagError(
                f"case {case_id!r}: {first.path} has features of width {first.feature_dim} and {bag.path} of "
                f"{bag.feature_dim}; extract all its slides with one encoder"
            )
    sizes = tuple(len(bag) for bag in filled)
    cells = [_cells(bag, place) for place, bag in enumerate(filled)]
    known = [one for one in cells if one is not None]
    places = torch.cat(known) if len(known) == len(cells) else None
    if limit is not None and sum(sizes) > limit:
        rows = _drawn_rows(case_id, sizes, limit, _generator(case_id))
        kept = [(bag, of_bag) for bag, of_bag in zip(filled, rows, strict=True) if len(of_bag)]
        return CaseBags(
            case_id,
            torch.cat([as_tensor(bag.features_at(of_bag)) for bag, of_bag in kept]),
            tuple(len(of_bag) for _, of_bag in kept),
            None if places is None else places[_in_case(rows, sizes)],
            _in_case(rows, sizes),
        )
    instances = first.features_view() if len(filled) == 1 else torch.cat([as_tensor(bag.features) for bag in filled])
    return CaseBags(case_id, instances, sizes, places)


def in_memory(case_id: str, *slides: Tensor, cells: Tensor | None = None) -> CaseBags:
    """Make a case of features that are in memory already: per slide float (M, D)."""
    filled = [slide for slide in slides if len(slide)]
    if not filled:
        raise BagError(f"case {case_id!r} holds no tile; leave it out")
    return CaseBags(case_id, torch.cat(filled), tuple(len(slide) for slide in filled), cells)


def draw(case: CaseBags, limit: int, rng: np.random.Generator) -> CaseBags:
    """Draw at most `limit` instances of a case, a fair share of each slide.

    Every slide gives equally many; what a small slide does not fill goes to the others. Within a slide the draw is
    uniform, without repetition, and keeps the order. With fewer instances than slides, some slides are drawn.

    Raises:
        ModelError: the limit is below 1.
    """
    if limit >= 1 and len(case) <= limit:
        return case
    return subset(case, _in_case(_drawn_rows(case.case_id, case.slide_sizes, limit, rng), case.slide_sizes))


def subset(case: CaseBags, rows: Tensor) -> CaseBags:
    """Keep some instances of a case, in memory; slides of which none is left are left out.

    Args:
        case: the case.
        rows: int64 (m,), ascending: places of the instances.
    """
    slides = torch.arange(len(case.slide_sizes)).repeat_interleave(torch.tensor(case.slide_sizes))
    left = slides[rows].bincount(minlength=len(case.slide_sizes)).tolist()
    kept = case.instances[rows] if isinstance(case.instances, Tensor) else as_tensor(case.instances[rows.numpy()])
    cells = None if case.cells is None else case.cells[rows]
    return CaseBags(case.case_id, kept, tuple(count for count in left if count), cells)


def pack(cases: Sequence[CaseBags], *, mapped: bool = False) -> dict[str, Any]:
    """Put cases one after another, as `SlideCaptioner.forward` takes them.

    Args:
        cases: at least one.
        mapped: leave the memory-mapped array of a single case as it is, for reading in chunks without gradients.

    Returns:
        instances: float (M_total, D), as stored; slide_sizes: per case, its slides' numbers of instances; coords:
        int64 (M_total, 3), ``None`` unless all cases' cells are known.
    """
    whole = mapped and len(cases) == 1
    instances = cases[0].instances if whole else torch.cat([as_tensor(case.instances) for case in cases])
    cells = [case.cells for case in cases if case.cells is not None]
    return {
        "instances": instances,
        "slide_sizes": [list(case.slide_sizes) for case in cases],
        "coords": torch.cat(cells) if len(cells) == len(cases) else None,
    }


def _generator(case_id: str) -> np.random.Generator:
    """Return what a case's instances are drawn with when it is read: the same whenever and wherever that is."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big"))


def _drawn_rows(
    case_id: str, sizes: Sequence[int], limit: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Return the rows of each slide, (n,) ascending, that a fair draw takes."""
    if limit < 1:
        raise ModelError(f"at most {limit} instances of case {case_id!r} were asked for; ask for 1 or more")
    shares = _fair_shares(sizes, limit, rng)
    return [np.sort(rng.choice(size, share, replace=False)) for size, share in zip(sizes, shares, strict=True)]


def _in_case(rows: Sequence[npt.NDArray[np.int64]], sizes: Sequence[int]) -> Tensor:
    """Return rows of each slide as rows of the whole case, int64 (m,)."""
    starts = np.cumsum([0, *sizes[:-1]])
    return torch.from_numpy(np.concatenate([start + of_slide for start, of_slide in zip(starts, rows, strict=True)]))


def _fair_shares(sizes: Sequence[int], limit: int, rng: np.random.Generator) -> list[int]:
    """Return how many instances each slide gives; they sum to `limit`, which is less than there are."""
    shares = np.zeros(len(sizes), np.int64)
    left = limit
    while left:
        open_slides = np.flatnonzero(shares < sizes)
        each = left // len(open_slides)
        if not each:  # fewer than one each: chance decides who gives one more
            shares[rng.choice(open_slides, left, replace=False)] += 1
            break
        given = np.minimum(each, np.asarray(sizes)[open_slides] - shares[open_slides])
        shares[open_slides] += given
        left -= int(given.sum())
    return [int(share) for share in shares]


def _cells(bag: FeatureBag, slide: int) -> Tensor | None:
    """(N, 3) column, row, slide; None where no instance of the bag lies in a grid."""
    grid = torch.from_numpy(np.array(bag.grid)).long()
    if (grid == NO_CELL).all():
        return None
    return torch.cat([grid, torch.full((len(grid), 1), slide)], dim=1)
