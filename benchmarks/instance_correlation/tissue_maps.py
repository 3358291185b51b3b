"""What lies where in a virtual case of two slides, and what is true of it, measured on the map itself.

One cell is one tile. A plan says what must be true and how large everything is; only then is the geometry drawn, again
and again until it fits, so that what is rejected does not change how much of each tissue there is.
"""

import heapq
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure

from wsi_mivpg.errors import CohortError

Relation = Literal["touching", "apart"]
Place = Literal["absent", "same slide", "other slide"]
Index = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

ROLES = ("base", "main", "partner", "first", "second")
"""Tissues of a case; number 1 to 5 on the map, where 0 is glass."""
BASE, MAIN, PARTNER, FIRST, SECOND = range(1, 6)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
SHARES_PERCENT = (5, 10, 15, 20)
FOCI = (1, 2, 3)
CELL_MM2 = 0.01
"""Area that a tile stands for."""
LEAST_BORDER = 3
"""Touching: at least so many pairs of neighbouring cells. Apart: at least two cells of other tissue in between."""
_LEAST_FOCUS = 5
_ATTEMPTS = 2000
_CROSSED: list[tuple[Relation, Place, bool, int]] = [
    (relation, first, second, foci)
    for relation in RELATIONS
    for first in ("absent", "absent", "same slide", "other slide")
    for second in (False, True)
    for foci in FOCI
]
_DISC = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Plan:
    """What a case shall be.

    Attributes:
        relation: of the main tissue to its partner, which both are always there, on one slide.
        first: where this tissue is, as seen from the main one.
        second: whether this tissue is there, on either slide.
        slide_cells: cells of tissue of the two slides.
        foci_cells: cells of each focus of the main tissue.
        other_cells: cells of partner, first and second.
    """

    relation: Relation
    first: Place
    second: bool
    slide_cells: tuple[int, int]
    foci_cells: tuple[int, ...]
    other_cells: tuple[int, int, int]


@dataclass(frozen=True)
class Truth:
    """What is true of a case; `largest_mm2` is of the main tissue's largest focus, shares are of the whole tissue."""

    relation: Relation
    share_percent: float
    n_foci: int
    largest_mm2: float
    first: Place
    second: bool


def plans(count: int, rng: np.random.Generator) -> list[Plan]:
    """Return plans in which relation, presence of two tissues, number of foci and share are independent of each other.

    Every 48 in a row hold each combination of all but the share once, those without the first tissue twice. The
    first plans are the same whatever `count` is.
    """
    made: list[Plan] = []
    while len(made) < count:
        made += [_plan(*_CROSSED[int(place)], rng) for place in rng.permutation(len(_CROSSED))]
    return made[:count]


def _plan(relation: Relation, first: Place, second: bool, foci: int, rng: np.random.Generator) -> Plan:
    cells = rng.integers(190, 300)
    slides = (int(cells + rng.integers(-8, 9)), int(cells + rng.integers(-8, 9)))
    total = sum(slides)
    share = (rng.choice(SHARES_PERCENT) + rng.uniform(-2, 2)) / 100
    main = max(foci * _LEAST_FOCUS, round(share * total))
    parts = _LEAST_FOCUS + np.floor(rng.dirichlet(np.full(foci, 3.0)) * (main - foci * _LEAST_FOCUS)).astype(int)
    parts[0] += main - parts.sum()
    others = tuple(round(total * rng.uniform(*bounds)) for bounds in ((0.05, 0.08), (0.08, 0.12), (0.08, 0.12)))
    return Plan(relation, first, second, slides, tuple(int(part) for part in parts), (others[0], others[1], others[2]))


def draw_maps(plan: Plan, rng: np.random.Generator) -> tuple[Index, Index]:
    """Draw both slides, uint8 (H, W) each.

    Raises:
        CohortError: no geometry fits the plan.
    """
    for _ in range(_ATTEMPTS):
        drawn = _attempt(plan, rng)
        if drawn is not None:
            return drawn
    raise CohortError(f"no tissue map fits {plan}; ask for smaller shares or larger slides")


def _attempt(plan: Plan, rng: np.random.Generator) -> tuple[Index, Index] | None:
    maps = [_blob(cells, rng) for cells in plan.slide_cells]
    here = int(rng.integers(2))
    main_slide = maps[here]
    if not _grow(main_slide, PARTNER, plan.other_cells[0], main_slide == BASE, None, rng):
        return None
    partner = main_slide == PARTNER
    for number, cells in enumerate(plan.foci_cells):
        allowed = (main_slide == BASE) & ~ndimage.binary_dilation(main_slide == MAIN, _DISC)
        near = None
        if plan.relation == "apart":
            allowed &= ~ndimage.binary_dilation(partner, _DISC, iterations=2)
        elif plan.relation == "touching" and number == 0:
            near = ndimage.binary_dilation(partner)
        if not _grow(main_slide, MAIN, cells, allowed, near, rng):
            return None
    if plan.relation == "touching" and border(main_slide, MAIN, PARTNER) < LEAST_BORDER:
        return None
    first_slide = main_slide if plan.first == "same slide" else maps[1 - here]
    second_slide = maps[int(rng.integers(2))]
    if plan.first != "absent" and not _grow(first_slide, FIRST, plan.other_cells[1], first_slide == BASE, None, rng):
        return None
    if plan.second and not _grow(second_slide, SECOND, plan.other_cells[2], second_slide == BASE, None, rng):
        return None
    return maps[0], maps[1]


def _blob(cells: int, rng: np.random.Generator) -> Index:
    """One rounded piece of base tissue with an uneven edge, in the middle of glass."""
    side = int(1.7 * cells**0.5) + 4
    index = np.zeros((side, side), np.uint8)
    middle = np.zeros_like(index, bool)
    middle[side // 2, side // 2] = True
    _grow(index, BASE, cells, np.pad(np.ones((side - 2, side - 2), bool), 1), middle, rng)
    return index


def _grow(index: Index, role: int, cells: int, allowed: Bool, near: Bool | None, rng: np.random.Generator) -> bool:
    """Turn one connected region of `allowed`, of exactly so many cells, into `role`; False where there is no room."""
    seeds = np.argwhere(allowed if near is None else allowed & near)
    if not len(seeds):
        return False
    seed = seeds[rng.integers(len(seeds))]
    rows, columns = np.indices(index.shape)
    cost = np.hypot(rows - seed[0], columns - seed[1]) + rng.normal(0, 1.0, index.shape)
    reached, seen = [], {(int(seed[0]), int(seed[1]))}
    waiting = [(0.0, int(seed[0]), int(seed[1]))]
    while waiting and len(reached) < cells:
        _, row, column = heapq.heappop(waiting)
        reached.append((row, column))
        for other in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= other[0] < index.shape[0] and 0 <= other[1] < index.shape[1]
            if inside and other not in seen and allowed[other]:
                seen.add(other)
                heapq.heappush(waiting, (float(cost[other]), *other))
    if len(reached) < cells:
        return False
    index[tuple(np.array(reached).T)] = role
    return True


def border(index: Index, one: int, other: int) -> int:
    """Return how many pairs of cells that share an edge are one of each tissue."""
    pairs = ((index[:, 1:], index[:, :-1]), (index[1:], index[:-1]))
    return sum(int(((a == one) & (b == other) | (a == other) & (b == one)).sum()) for a, b in pairs)


def measure_truth(maps: tuple[Index, Index]) -> Truth:
    """Measure what is true of a case on its maps."""
    both = np.concatenate([index.ravel() for index in maps])
    main, first = ([bool((index == role).any()) for index in maps] for role in (MAIN, FIRST))
    touching = any(border(index, MAIN, PARTNER) for index in maps)
    regions = [measure.label(index == MAIN, connectivity=1) for index in maps]
    sizes = [size for named in regions for size in np.bincount(named.ravel())[1:]]
    return Truth(
        relation="touching" if touching else "apart",
        share_percent=float(100 * (both == MAIN).sum() / (both > 0).sum()),
        n_foci=len(sizes),
        largest_mm2=float(max(sizes) * CELL_MM2),
        first="absent" if not any(first) else "same slide" if first == main else "other slide",
        second=bool((both == SECOND).any()),
    )
