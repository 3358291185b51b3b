"""Procedural haematoxylin-and-eosin tissue at 0.25 µm per pixel (40x), as seamless square tiles.

Every tissue label is drawn as two amounts per pixel, of haematoxylin (H) and of eosin (E), that an
optical-density model turns into colour: ``RGB = 255 * exp(-(H * h_vec + E * e_vec))``.  The tiles are
toroidal: opposite edges meet, so that ``np.pad(..., mode="wrap")`` or a modulo look-up covers any area
without a seam.
Structures have their true size (nuclei 6-12 µm, airspaces 40-100 µm), times the slide's own ``scale``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.cohorts import _texture as tx
from wsi_mivpg.cohorts._texture import F32, F64, Nucleus

LABELS = ("parenchyma", "glandular_tumour", "keratinising_tumour", "stroma", "lymphoid", "necrosis")
MPP = 0.25
MIN_SIDE_PX = 256

_PITCH = 4  # pixels per work-grid cell: 1 µm
_H_DIRECTIONS = np.array([[0.65, 0.70, 0.29], [0.56, 0.72, 0.41]])
_E_DIRECTIONS = np.array([[0.10, 0.96, 0.25], [0.22, 0.80, 0.56]])

Rng = np.random.Generator


@dataclass(frozen=True)
class Stain:
    """One slide's look: dye vectors float64 (3,) in optical density per unit of dye (R, G, B), and factors.

    ``intensity`` multiplies both dyes; ``scale`` multiplies the size of nuclei and structures.
    """

    haematoxylin: F64
    eosin: F64
    intensity: float
    scale: float


def random_stain(rng: np.random.Generator) -> Stain:
    """A slide's stain as another laboratory might make it: hue, dye balance, intensity and scale vary."""
    vectors = []
    for ends, spread in ((_H_DIRECTIONS, 0.24), (_E_DIRECTIONS, 0.24)):
        mix = rng.uniform(0, 1)
        vector = np.clip((1 - mix) * ends[0] + mix * ends[1] + rng.normal(0, 0.02, 3), 0.03, None)
        vectors.append(vector / np.linalg.norm(vector) * np.exp(rng.normal(0, spread)))
    return Stain(vectors[0], vectors[1], float(rng.uniform(0.72, 1.3)), float(rng.uniform(0.86, 1.16)))


@dataclass(frozen=True)
class _Tile:
    """What a painter needs: the tile's ``side`` in pixels, pixels per structural µm, and the generator."""

    side: int
    um: float
    rng: Rng

    @property
    def n(self) -> int:
        """Cells along an edge of the 1 µm work grid."""
        return tx.grid_size(self.side, _PITCH)

    def noise(self, sigma_um: float) -> F32:
        """Smooth unit noise (n, n) with a smoothing of ``sigma_um`` µm."""
        return tx.noise(self.n, sigma_um * self.um / _PITCH, self.rng)

    def up(self, field: F32) -> F32:
        """A work grid (n, n) brought to full resolution (side, side)."""
        return tx.upsample(field, self.side)

    def grain(self, sigma_px: float) -> F32:
        """Fine unit noise (side, side) smoothed by about ``sigma_px`` >= 1.5 pixels."""
        m = tx.grid_size(self.side, 2)
        return tx.upsample(tx.noise(m, sigma_px / 2, self.rng), self.side)

    def kind(
        self,
        length_um: float,
        width_um: float,
        darkness: float,
        *,
        rim: float = 0.25,
        clumps: float = 0.2,
        nucleoli: float = 0.0,
        irregular: float = 0.05,
        spread: float = 0.1,
        variants: int = 7,
    ) -> Nucleus:
        """A ``Nucleus`` with its diameters given in µm."""
        return Nucleus(
            length_um * self.um,
            width_um * self.um,
            darkness,
            rim,
            clumps,
            nucleoli,
            irregular,
            spread,
            variants,
        )

    def canvas(self) -> F32:
        """An empty nuclear layer (side, side)."""
        return np.zeros((self.side, self.side), np.float32)

    def points(self, where: F32, spacing_um: float, core_um: float, share: float = 1.0) -> F64:
        """Random points (count, 2) with probability ``where`` (n, n), none nearer than ``core_um`` µm."""
        points = tx.uniform_points(self.side, spacing_um * self.um, self.rng)
        points = points[self.rng.random(len(points)) < tx.at(where, points, self.side)]
        points = points[tx.hard_core(points, core_um * self.um, self.side)]
        return points[self.rng.random(len(points)) < share]


@dataclass(frozen=True)
class _Layers:
    """Amounts of dye (side, side): background H and E, and the H of nuclei painted over them."""

    haematoxylin: F32
    eosin: F32
    nuclei: F32


def _collagen(tile: _Tile) -> tuple[F32, F32]:
    """Thin interstitial collagen on the work grid: eosin (n, n) and fibre direction (n, n)."""
    um = tile.um
    texture, angle = tx.fibres(tile.n, tile.side, (14 * um, 0.9 * um), (9 * um, 22 * um), tile.rng)
    return np.asarray(0.5 + 0.14 * texture, dtype=np.float32), angle


def _walls(
    tile: _Tile,
    spacing_um: float,
    jitter: float,
    bends: tuple[tuple[float, float], ...],
    rounding_um: float,
    open_share: float = 0.0,
) -> tx.Cells:
    """Warped Voronoi cells on the work grid; lengths in µm, ``edge`` of the answer in µm too."""
    um = tile.um
    seeds = tx.lattice(tile.side, spacing_um * um, jitter, tile.rng)
    coords = tx.warped_grid(tile.n, tile.side, tuple((a * um, s * um) for a, s in bends), tile.rng)
    cells = tx.voronoi(seeds, coords, tile.side, rounding_um * um, tile.rng, open_share=open_share)
    return tx.Cells(cells.owner, np.asarray(cells.edge / np.float32(um), dtype=np.float32))


def _red_cells(tile: _Tile, where: F32, core_um: float, share: float) -> F32:
    """Erythrocytes: eosin (side, side) of pale-centred discs of 6.5 µm placed where the work grid says."""
    layer = tile.canvas()
    points = tile.points(where, 3.0, core_um, share)
    tx.paint(layer, points, None, tile.kind(6.3, 5.6, 0.95, rim=0.15, clumps=0.03), tile.rng)
    return layer


def _parenchyma(tile: _Tile) -> _Layers:
    """Alveoli: thin septa with sparse nuclei around empty airspaces."""
    cells = _walls(tile, 92, 0.34, ((14, 42), (4, 12)), 5, open_share=0.1)
    half = 4.6 + 1.3 * tile.noise(18) + 0.9 * tile.noise(4)
    half = np.clip(half, 2.6, 10).astype(np.float32)
    depth = half - cells.edge  # µm inside the septum
    septum = tx.smoothstep(depth, -0.7, 0.9)
    along = tx.normal_angle(cells.edge, 2.5) + np.float32(np.pi / 2)
    middle = tx.smoothstep(depth, 0.6, 2.4)
    nuclei = tile.canvas()
    points = tile.points(middle, 3.2, 7.5, 0.62)
    long = tile.rng.random(len(points)) < 0.65
    angles = tx.at(along, points, tile.side)
    tx.paint(nuclei, points[long], angles[long], tile.kind(10, 4.4, 1.05, irregular=0.07), tile.rng)
    tx.paint(nuclei, points[~long], None, tile.kind(7.2, 6.2, 1.0), tile.rng)
    macrophages = tile.points(tx.smoothstep(cells.edge, 14, 18), 30, 40, 0.12)
    foam = tile.canvas()
    foamy = tile.kind(15, 13, 0.38, rim=0.2, clumps=0.25, irregular=0.1, variants=1)
    tx.paint(foam, macrophages, None, foamy, tile.rng)
    tx.paint(nuclei, macrophages + 3 * tile.um, None, tile.kind(7, 5.5, 0.9), tile.rng)
    red = _red_cells(tile, tx.smoothstep(depth, 1.2, 2.2), 5.2, 0.4)
    tissue = tile.up(septum)
    eosin = tissue * (0.5 + 0.1 * tile.grain(2.2) + tile.up(0.09 * tile.noise(5)))
    eosin = np.maximum(np.maximum(eosin, 0.75 * red * tissue), foam)
    return _Layers(0.07 * tissue + 0.1 * foam, eosin, nuclei)


def _glandular(tile: _Tile) -> _Layers:
    """Adenocarcinoma: back-to-back irregular glands with lumina, crowded radial nuclei, thin stroma."""
    cells = _walls(tile, 90, 0.34, ((15, 38), (4, 12)), 3)
    rind = np.clip(2.9 + 1.8 * tile.noise(30) + 0.6 * tile.noise(6), 1.3, 11).astype(np.float32)
    depth = cells.edge - rind  # µm above the basement membrane
    height = np.clip(23 + 4 * tile.noise(25) + 1.6 * tile.noise(4), 13, 38).astype(np.float32)
    gland, lumen = tx.smoothstep(depth, -0.6, 0.6), tx.smoothstep(depth - height, -0.6, 0.8)
    radial = tx.normal_angle(cells.edge, 2.5)
    collagen, _ = _collagen(tile)
    nuclei = tile.canvas()
    basal = tx.smoothstep(depth, 3.2, 4.6) * (1 - tx.smoothstep(depth - 0.62 * height, -2.0, 1.5))
    points = tile.points(basal, 2.0, 4.7, 0.96)
    angles = tx.at(radial, points, tile.side) + tile.rng.normal(0, 0.22, len(points))
    kind = tile.kind(10.8, 5.6, 1.25, rim=0.2, clumps=0.2, nucleoli=0.35, irregular=0.06, spread=0.13)
    tx.paint(nuclei, points, angles, kind, tile.rng)
    spindles = tile.points(tx.smoothstep(-depth, 1.2, 2.6), 4, 11, 0.5)
    along = tx.at(radial, spindles, tile.side) + np.float32(np.pi / 2)
    tx.paint(nuclei, spindles, along, tile.kind(11, 2.9, 1.2), tile.rng)
    apex = np.exp(-(((depth - height + 1.0) / 1.1) ** 2)).astype(np.float32)
    cytoplasm = 0.3 + 0.05 * tile.noise(7) + 0.25 * apex
    empty = np.asarray(0.05 * tx.smoothstep(tile.noise(9), 0.8, 1.8), dtype=np.float32)
    inside = np.asarray((1 - lumen) * cytoplasm + lumen * empty, dtype=np.float32)
    eosin = tile.up(np.asarray(gland * inside + (1 - gland) * collagen, dtype=np.float32))
    solid = tile.up(np.asarray(gland * (1 - lumen), dtype=np.float32))
    eosin *= 1 + 0.16 * tile.grain(2.0)
    return _Layers((0.2 + 0.03 * tile.grain(3.5)) * solid + 0.04, eosin, nuclei)


@dataclass(frozen=True)
class _Pearls:
    """Keratin pearls on the work grid, all (n, n): share of keratin, its lamellae, nearness and angle."""

    core: F32
    lamellae: F32
    near: F32
    tangent: F32


def _pearls(tile: _Tile) -> _Pearls:
    """Concentric keratin whorls of 30-58 µm radius, at least one and about one for each 175 by 175 µm."""
    um, side = tile.um, tile.side
    centres = tx.lattice(side, min(150 * um, side / 2), 0.25, tile.rng)
    count = max(1, round((side / (175 * um)) ** 2))
    centres = centres[tile.rng.permutation(len(centres))[:count]]
    radii = tile.rng.uniform(30, 58, len(centres))
    coords = tx.warped_grid(tile.n, side, ((6 * um, 22 * um), (1.2 * um, 6 * um)), tile.rng)
    offset = coords[:, :, None, :] - centres
    offset -= side * np.round(offset / side)
    distance = np.sqrt((offset**2).sum(axis=-1)) / um
    best = np.argmin(distance / radii, axis=-1)[..., None]
    r = np.take_along_axis(distance, best, -1)[..., 0].astype(np.float32)
    radius = radii[best[..., 0]].astype(np.float32)
    toward = np.take_along_axis(offset, best[..., None], 2)[..., 0, :]
    tangent = np.arctan2(toward[..., 0], toward[..., 1]).astype(np.float32) + np.float32(np.pi / 2)
    wave = np.sin(2 * np.pi * r / 5.2 + 1.3 * tile.noise(9))
    wave = wave + 0.6 * np.sin(2 * np.pi * r / 8.7 + tile.noise(14))
    ratio = r / radius
    return _Pearls(
        1 - tx.smoothstep(ratio, 0.86, 1.02),
        wave.astype(np.float32),
        1 - tx.smoothstep(ratio, 1.1, 1.75),
        tangent,
    )


def _keratinising(tile: _Tile) -> _Layers:
    """Squamous carcinoma: sheets of polygonal pink cells with borders, vesicular nuclei, keratin pearls."""
    um, side, n = tile.um, tile.side, tile.n
    nests = _walls(tile, 210, 0.3, ((26, 60), (4, 12)), 9)
    pearls = _pearls(tile)
    rind = np.clip(8 + 5 * tile.noise(35), 1.5, 22).astype(np.float32) * (1 - pearls.core)
    nest = np.maximum(tx.smoothstep(nests.edge - rind, -0.8, 0.8), pearls.core)
    seeds = tx.lattice(side, 15.5 * um, 0.2, tile.rng)
    coords = tx.warped_grid(n, side, ((0.8 * um, 4 * um),), tile.rng)
    polygons = tx.voronoi(seeds, coords, side, 0.7 * um, tile.rng, neighbours=2)
    border = np.exp(-((polygons.edge / (1.0 * um)) ** 2)).astype(np.float32)
    tone = tile.rng.normal(0, 0.07, len(seeds)).astype(np.float32)[polygons.owner]
    nuclei = tile.canvas()
    _squamous_nuclei(tile, nuclei, seeds, nest, pearls)
    collagen, fibre = _collagen(tile)
    loose = tile.points(np.asarray((1 - nest) * 0.9, dtype=np.float32), 5, 9, 0.55)
    tx.paint(nuclei, loose, tx.at(fibre, loose, side), tile.kind(11.5, 3.0, 1.2), tile.rng)
    cell = 0.55 + tone + 0.08 * tile.noise(30) + 0.22 * pearls.near - 0.34 * border
    keratin = 1.05 + 0.2 * pearls.lamellae + 0.1 * tile.noise(12)
    inside = pearls.core * keratin + (1 - pearls.core) * cell
    eosin = tile.up(np.asarray(nest * inside + (1 - nest) * collagen, dtype=np.float32))
    eosin *= 1 + 0.09 * tile.grain(2.0)
    blue = nest * (1 - pearls.core) * (0.15 + 0.05 * tile.noise(25) - 0.06 * border)
    return _Layers(tile.up(np.asarray(blue, dtype=np.float32)), eosin, nuclei)


def _squamous_nuclei(tile: _Tile, nuclei: F32, seeds: F64, nest: F32, pearls: _Pearls) -> None:
    """Paint vesicular nuclei at the cells' centres, flattened ones around pearls and few ghosts inside."""
    side = tile.side
    core, near = tx.at(pearls.core, seeds, side), tx.at(pearls.near, seeds, side)
    inside = (tx.at(nest, seeds, side) > np.float32(0.6)) & (tile.rng.random(len(seeds)) < 0.93)
    plain = inside & (core < np.float32(0.3)) & (near < np.float32(0.55))
    flat = inside & (core < np.float32(0.5)) & ~plain
    ghost = (core >= np.float32(0.5)) & (tile.rng.random(len(seeds)) < 0.13)
    vesicular = tile.kind(9.8, 8.2, 0.74, rim=0.5, clumps=0.24, nucleoli=0.95, irregular=0.06, spread=0.14)
    tx.paint(nuclei, seeds[plain], None, vesicular, tile.rng)
    angles = tx.at(pearls.tangent, seeds, side)
    tx.paint(nuclei, seeds[flat], angles[flat], tile.kind(10, 4.8, 1.0, rim=0.35), tile.rng)
    tx.paint(nuclei, seeds[ghost], angles[ghost], tile.kind(6, 2.6, 0.85), tile.rng)


def _bundles(tile: _Tile) -> tuple[F32, F32]:
    """One family of collagen bundles: eosin (m, m), m cells of 2 px along an edge, and fibre direction."""
    um, m = tile.um, tx.grid_size(tile.side, 2)
    state = int(tile.rng.integers(2**63))  # replayed: fibrils and bundles share their direction and waves
    bend = (11 * um, 34 * um)
    wide, _ = tx.fibres(m, tile.side, (38 * um, 2.4 * um), bend, np.random.default_rng(state))
    fine, angle = tx.fibres(m, tile.side, (13 * um, 0.65 * um), bend, np.random.default_rng(state))
    clefts = tx.smoothstep(wide, -2.0, -1.05)
    eosin = clefts * (0.52 + 0.11 * np.clip(wide, -1.5, 2.2) + 0.11 * fine) + 0.06
    return np.asarray(eosin, dtype=np.float32), angle


def _stroma(tile: _Tile) -> _Layers:
    """Fibrous stroma: interwoven wavy collagen bundles with clefts between them, sparse spindle nuclei."""
    um, side = tile.um, tile.side
    (eosin, angle), (other, other_angle) = _bundles(tile), _bundles(tile)
    m = eosin.shape[0]
    weave = tx.noise(m, 26 * um * m / side, tile.rng) + 0.5 * tx.noise(m, 7 * um * m / side, tile.rng)
    blend = tx.smoothstep(weave, 0.4, 1.1)
    eosin = eosin + blend * (other - eosin)
    angle = np.where(blend > np.float32(0.5), other_angle, angle)
    nuclei = tile.canvas()
    where = np.ones((tile.n, tile.n), np.float32)
    points = tile.points(where, 9, 15, 0.6)
    angles = tx.at(angle, points, side) + tile.rng.normal(0, 0.1, len(points))
    tx.paint(nuclei, points, angles, tile.kind(14.5, 2.9, 1.15, irregular=0.08, spread=0.16), tile.rng)
    plump = tile.points(where, 40, 30, 0.3)
    tx.paint(nuclei, plump, tx.at(angle, plump, side), tile.kind(10, 4.6, 0.9), tile.rng)
    eosin = tile.up(eosin)
    return _Layers(0.1 * eosin, eosin * (1 + 0.08 * tile.grain(1.8)), nuclei)


def _lymphoid(tile: _Tile) -> _Layers:
    """Lymphoid tissue: dense small round dark nuclei, scant cytoplasm, a few paler larger cells."""
    um, side = tile.um, tile.side
    seeds = tx.lattice(side, 7.7 * um, 0.22, tile.rng)
    follicle = tx.smoothstep(tile.noise(45), 0.7, 1.5)
    strands, fibre = tx.fibres(tile.n, side, (30 * um, 2.2 * um), (20 * um, 40 * um), tile.rng)
    strand = tx.smoothstep(strands, 1.9, 2.3)
    chance = tile.rng.random(len(seeds))
    large = chance < 0.05 + 0.3 * tx.at(follicle, seeds, side).astype(np.float64)
    kept = (tx.at(strand, seeds, side) < np.float32(0.5)) & (tile.rng.random(len(seeds)) < 0.955)
    nuclei = tile.canvas()
    pale = tile.kind(9.0, 7.8, 0.8, rim=0.45, clumps=0.25, nucleoli=0.6)
    tx.paint(nuclei, seeds[kept & large], None, pale, tile.rng)
    small = tile.kind(7.1, 6.6, 1.35, rim=0.12, clumps=0.24, irregular=0.04, spread=0.08)
    tx.paint(nuclei, seeds[kept & ~large], None, small, tile.rng)
    lining = tile.points(strand, 4, 9, 0.7)
    tx.paint(nuclei, lining, tx.at(fibre, lining, side), tile.kind(11, 3.0, 1.1), tile.rng)
    eosin = 0.2 + 0.05 * tile.noise(4) + 0.04 * tile.noise(20) + 0.3 * strand
    eosin = tile.up(np.asarray(eosin, dtype=np.float32)) * (1 + 0.2 * tile.grain(2.5))
    return _Layers(0.12 + 0.02 * tile.grain(3), eosin, nuclei)


def _necrosis(tile: _Tile) -> _Layers:
    """Coagulative necrosis: granular smudged eosin, faint ghosts of cells and dark nuclear dust."""
    cells = _walls(tile, 13.5, 0.26, ((2.0, 6), (0.5, 2)), 1.0)
    patches = tx.smoothstep(tile.noise(28), -0.7, 0.8)
    ghost = np.exp(-((cells.edge / 1.1) ** 2)).astype(np.float32) * patches
    smudge = tile.noise(2.2)
    cracks = tx.smoothstep(tile.noise(7) + 0.4 * smudge, 1.75, 2.3)
    eosin = 0.54 + 0.09 * tile.noise(20) + 0.06 * tile.noise(6) + 0.06 * smudge - 0.24 * ghost
    eosin = tile.up(np.asarray((1 - 0.75 * cracks) * eosin, dtype=np.float32))
    grains = tile.grain(1.9) + 0.7 * tile.grain(4.0)
    eosin *= 1 + 0.15 * grains
    nuclei = tile.canvas()
    cluster = tx.smoothstep(tile.noise(14), 0.3, 1.9)
    dust = tile.points(np.asarray(0.06 + 0.7 * cluster, dtype=np.float32), 4.2, 2.0)
    fine = tile.rng.random(len(dust)) < 0.7
    tx.paint(nuclei, dust[fine], None, tile.kind(1.7, 1.3, 1.2, irregular=0.2, spread=0.25), tile.rng)
    tx.paint(nuclei, dust[~fine], None, tile.kind(3.0, 2.3, 1.25, irregular=0.22, spread=0.25), tile.rng)
    shrunken = tile.points(cluster, 14, 10, 0.7)
    tx.paint(nuclei, shrunken, None, tile.kind(4.8, 3.8, 1.2, irregular=0.16, spread=0.2), tile.rng)
    fading = tile.points(patches, 9, 11, 0.7)
    tx.paint(nuclei, fading, None, tile.kind(7.5, 6.5, 0.3, rim=0.2, clumps=0.3), tile.rng)
    blue = 0.12 + 0.1 * cluster + 0.05 * smudge
    blue = tile.up(np.asarray(blue, dtype=np.float32)) * (1 + 0.25 * grains)
    return _Layers(np.asarray(blue, dtype=np.float32), eosin, nuclei)


_PAINTERS: dict[str, Callable[[_Tile], _Layers]] = dict(
    zip(LABELS, (_parenchyma, _glandular, _keratinising, _stroma, _lymphoid, _necrosis), strict=True)
)


def _soften(field: F32) -> F32:
    """Optical blur: a periodic (1, 2, 1) kernel along both axes."""
    for axis in (0, 1):
        field = 0.5 * field + 0.25 * (np.roll(field, 1, axis) + np.roll(field, -1, axis))
    return np.asarray(field, dtype=np.float32)


def _develop(layers: _Layers, stain: Stain, rng: Rng) -> NDArray[np.uint8]:
    """Colour uint8 (side, side, 3) of the dye amounts, with slight blur and sensor noise."""
    cover = np.minimum(layers.nuclei * np.float32(1.6), 1)
    h = np.maximum(layers.haematoxylin, 0) * (1 - cover) + layers.nuclei
    h = _soften(h) * np.float32(stain.intensity)
    e = _soften(np.maximum(layers.eosin, 0) * (1 - np.float32(0.6) * cover)) * np.float32(stain.intensity)
    base = np.float32(0.035) + np.float32(0.012) * rng.standard_normal(h.shape, dtype=np.float32)
    image = np.empty((*h.shape, 3), np.uint8)
    for channel in range(3):
        density = h * np.float32(stain.haematoxylin[channel]) + e * np.float32(stain.eosin[channel]) + base
        image[..., channel] = np.clip(255 * np.exp(-density) + np.float32(0.5), 0, 255)
    return image


def render(label: str, side_px: int, stain: Stain, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A seamless tile of one tissue, uint8 (side_px, side_px, 3), at 0.25 µm per pixel.

    ``label`` is one of ``LABELS``; ``side_px`` must be at least ``MIN_SIDE_PX``.  The answer depends only on
    the arguments and the state of ``rng``, which it advances.  Raises ValueError for any other argument.
    """
    if label not in _PAINTERS:
        raise ValueError(f"unknown tissue label {label!r}; known: {', '.join(LABELS)}")
    if side_px < MIN_SIDE_PX:
        raise ValueError(f"a tile needs at least {MIN_SIDE_PX} px, not {side_px}")
    layers = _PAINTERS[label](_Tile(side_px, stain.scale / MPP, rng))
    return _develop(layers, stain, rng)
