"""The map of tissues of a virtual biopsy, and the truth that is measured on it.

Pure geometry over NumPy arrays: cells of `MAP_CELL_PX` level-0 pixels, 0 is glass.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure

from wsi_mivpg.cohorts.wording import FINDING_OF_LABEL

MAP_CELL_PX = 8
"""Side of a map cell in level-0 pixels."""
_TOUCH_CELLS = 12
"""Two tissues touch when at least this many pairs of neighbouring cells (96 px of border) do."""
_SPECK_SHARE = 0.01
"""A piece of the main finding smaller than this share of the tissue is given to the base tissue."""

Bool = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelMap:
    """`index` uint8[H, W]: 0 glass, i is ``labels[i - 1]``; `main` is the label of the main finding, if any."""

    index: npt.NDArray[np.uint8]
    labels: tuple[str, ...]
    main: str | None

    def of(self, label: str) -> Bool:
        """Return bool[H, W]: where `label` is."""
        here: Bool = self.index == self.labels.index(label) + 1
        return here


@dataclass(frozen=True)
class Truth:
    """What is true of a virtual slide. `regions` is GeoJSON in level-0 pixels; `shares` sum to 1."""

    organ: str
    procedure: str
    finding: str
    extent_percent: float
    n_foci: int
    touches: tuple[str, ...]
    shares: dict[str, float]
    adjacent_pairs: tuple[tuple[str, str], ...]
    regions: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the truth as a JSON-like dict."""
        return asdict(self)


def _noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> Float:
    """Return smooth noise of zero mean and unit deviation; drawn coarse, since it is smooth."""
    step = max(1, int(sigma // 3))
    coarse = rng.normal(size=(shape[0] // step + 8, shape[1] // step + 8))
    smooth = ndimage.gaussian_filter(coarse, sigma / step)
    fine: Float = ndimage.zoom(smooth, step, order=1)[: shape[0], : shape[1]] if step > 1 else smooth
    fine = fine[: shape[0], : shape[1]]
    unit: Float = (fine - fine.mean()) / (fine.std() + 1e-9)
    return unit


def _lowest(cost: Float, where: Bool, count: int) -> Bool:
    """Return the `count` cells of `where` with the lowest cost."""
    values = cost[where]
    if count <= 0 or values.size == 0:
        return np.zeros_like(where)
    limit = np.partition(values, min(count, values.size) - 1)[min(count, values.size) - 1]
    lowest: Bool = where & (cost <= limit)
    return lowest


def _distance_to(points: npt.NDArray[np.intp], shape: tuple[int, int]) -> Float:
    marks = np.ones(shape, bool)
    marks[tuple(points.T)] = False
    distance: Float = ndimage.distance_transform_edt(marks)
    return distance


def _fragments(n_fragments: int, tissue_cells: float, rng: np.random.Generator) -> Bool:
    """Return bool[H, W]: separate rounded pieces of tissue side by side, with glass around them."""
    weights = rng.dirichlet(np.full(n_fragments, 6.0))
    pieces = []
    for weight in weights:
        area = tissue_cells * weight
        stretch = rng.uniform(0.7, 1.45)
        side = int(np.sqrt(area) * 1.9) + 24
        yy, xx = np.mgrid[:side, :side] - side / 2
        cost = np.hypot(yy * stretch, xx / stretch)
        cost += 0.12 * np.sqrt(area) * _noise((side, side), side / 9, rng)
        inner = np.zeros((side, side), bool)
        inner[6:-6, 6:-6] = True
        piece = ndimage.binary_fill_holes(_lowest(cost, inner, int(area)))
        named = measure.label(piece)
        piece = named == 1 + int(np.argmax(np.bincount(named.ravel())[1:]))
        rows, columns = np.flatnonzero(piece.any(1)), np.flatnonzero(piece.any(0))
        pieces.append(piece[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    margin = 40
    high = max(piece.shape[0] for piece in pieces) + 2 * margin
    wide = sum(piece.shape[1] for piece in pieces) + margin * (len(pieces) + 1)
    mask = np.zeros((high + high % 2, wide + wide % 2), bool)
    left = margin
    for piece in pieces:
        top = margin + int(rng.integers(0, high - 2 * margin - piece.shape[0] + 1))
        mask[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
        left += piece.shape[1] + margin
    return mask


def draw_label_map(plan: dict[str, Any], rng: np.random.Generator) -> LabelMap:
    """Draw the tissues of one slide from a plan (see `virtual._plan` for its keys)."""
    tissue = _fragments(plan["fragments"], plan["tissue_cells"], rng)
    shape = (tissue.shape[0], tissue.shape[1])
    total = int(tissue.sum())
    reach = np.sqrt(total)
    names = list(plan["bases"])
    index = np.zeros(shape, np.uint8)
    if len(names) > 1:
        first = _lowest(_noise(shape, reach / 6, rng), tissue, int(total * plan["base_split"]))
        if rng.random() < 0.5:
            names.reverse()
        index[first], index[tissue & ~first] = 1, 2
    else:
        index[tissue] = 1
    main_mask = np.zeros(shape, bool)
    if plan["main"] is not None:
        cells = np.argwhere(tissue)
        seeds = cells[rng.choice(len(cells), size=plan["foci"], replace=False)]
        cost = _distance_to(seeds, shape) + 0.06 * reach * _noise(shape, reach / 14, rng)
        main_mask = _without_specks(_lowest(cost, tissue, int(total * plan["share"])), total)
        names.append(plan["main"])
        index[main_mask] = len(names)
    if plan["second"] is not None and main_mask.any():
        second = _second_region(tissue, main_mask, plan, total, rng)
        names.append(plan["second"])
        index[second] = len(names)
    return _compact(index, names, plan["main"])


def _without_specks(mask: Bool, total: int) -> Bool:
    named = measure.label(mask, connectivity=1)
    sizes = np.bincount(named.ravel())
    keep = sizes >= _SPECK_SHARE * total
    keep[0] = False
    if not keep.any() and sizes.size > 1:
        keep[1 + int(np.argmax(sizes[1:]))] = True
    kept: Bool = keep[named]
    return kept


def _second_region(tissue: Bool, main_mask: Bool, plan: dict[str, Any], total: int, rng: np.random.Generator) -> Bool:
    """Return a smaller region outside the main finding: against its border, or as far away as there is room."""
    free = tissue & ~main_mask
    if not free.any():
        return free
    distance = ndimage.distance_transform_edt(~main_mask)
    count = int(min(0.5 * free.sum(), total * rng.uniform(0.06, 0.15)))
    candidates = np.argwhere(free & (distance <= 3)) if plan["second_touches"] else np.empty((0, 2), np.intp)
    if len(candidates) == 0:
        far = distance[free].max()
        candidates = np.argwhere(free & (distance >= 0.9 * far))
    seed = candidates[int(rng.integers(len(candidates)))][None]
    shape = (tissue.shape[0], tissue.shape[1])
    cost = _distance_to(seed, shape) + 0.02 * np.sqrt(total) * _noise(shape, np.sqrt(total) / 20, rng)
    return _lowest(cost, free, count)


def _compact(index: npt.NDArray[np.uint8], names: list[str], main: str | None) -> LabelMap:
    """Renumber so that only labels that are really there remain."""
    present = [number for number in range(1, len(names) + 1) if (index == number).any()]
    table = np.zeros(len(names) + 1, np.uint8)
    for new, old in enumerate(present, start=1):
        table[old] = new
    labels = tuple(names[number - 1] for number in present)
    return LabelMap(table[index], labels, main if main in labels else None)


def _border_cells(a: Bool, b: Bool) -> int:
    """Return how many pairs of 4-neighbouring cells have one cell in `a` and the other in `b`."""
    across = (a[:, 1:] & b[:, :-1]).sum() + (b[:, 1:] & a[:, :-1]).sum()
    down = (a[1:] & b[:-1]).sum() + (b[1:] & a[:-1]).sum()
    return int(across + down)


def measure_truth(label_map: LabelMap, mpp: float) -> Truth:
    """Measure shares, foci, adjacency and outlines on the map itself."""
    tissue = int((label_map.index > 0).sum())
    masks = {label: label_map.of(label) for label in label_map.labels}
    shares = {label: round(float(mask.sum()) / tissue, 4) for label, mask in masks.items()}
    pairs = tuple(
        (a, b)
        for i, a in enumerate(label_map.labels)
        for b in label_map.labels[i + 1 :]
        if _border_cells(masks[a], masks[b]) >= _TOUCH_CELLS
    )
    main = label_map.main
    touches = tuple(b if a == main else a for a, b in pairs if main in (a, b))
    foci = int(measure.label(masks[main], connectivity=1).max()) if main else 0
    return Truth(
        organ="Lung",
        procedure="core biopsy",
        finding=FINDING_OF_LABEL[main] if main else "benign",
        extent_percent=round(100 * shares[main], 2) if main else 0.0,
        n_foci=foci,
        touches=tuple(sorted(touches)),
        shares=shares,
        adjacent_pairs=pairs,
        regions=_regions(masks, mpp),
    )


def _regions(masks: dict[str, Bool], mpp: float) -> dict[str, Any]:
    features = []
    for label, mask in masks.items():
        named = measure.label(mask, connectivity=1)
        for part in measure.regionprops(named):
            if part.area < 16:
                continue
            outline = measure.find_contours(np.pad(part.image, 1).astype(np.uint8), 0.5)
            rings = []
            for ring in outline:
                corner = np.array(part.bbox[:2]) - 1
                xy = (measure.approximate_polygon(ring, 0.5) + corner + 0.5)[:, ::-1] * MAP_CELL_PX
                rings.append(xy.round(1).tolist())
            rings.sort(key=lambda ring: -len(ring))
            area_mm2 = float(part.area) * (MAP_CELL_PX * mpp / 1000) ** 2
            features.append(
                {
                    "type": "Feature",
                    "properties": {"classification": {"name": label}, "area_mm2": round(area_mm2, 4)},
                    "geometry": {"type": "Polygon", "coordinates": rings},
                }
            )
    return {"type": "FeatureCollection", "features": features}
