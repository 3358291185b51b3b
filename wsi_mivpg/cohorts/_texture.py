"""Periodic texture primitives of the procedural H&E renderer.

All fields are toroidal and square.  A *work grid* is a field of ``n`` by ``n`` cells that covers a tile of
``side`` by ``side`` full-resolution pixels; the centre of cell ``i`` is pixel ``(i + 0.5) * side / n - 0.5``.
Points are float64 arrays of shape (count, 2) in (row, column) order, in pixels, within ``[0, side)``.
Angles are in radians, taken from the column axis towards the row axis: direction ``(sin a, cos a)``.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, sparse
from scipy.spatial import cKDTree

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_ANGLE_BINS = 16


def smoothstep(field: F32, low: float, high: float) -> F32:
    """Hermite ramp of ``field``: 0 at ``low`` and below, 1 at ``high`` and above (same shape)."""
    t = np.clip((field - np.float32(low)) * np.float32(1.0 / (high - low)), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def grid_size(side: int, pitch: int) -> int:
    """Cells along one edge of a work grid whose cells are about ``pitch`` pixels wide."""
    return -(-side // pitch)


@lru_cache(maxsize=16)
def _upsampler(n: int, side: int) -> sparse.csr_array:
    """Sparse (side, n) Catmull-Rom interpolation matrix with wrap-around."""
    x = (np.arange(side) + 0.5) * n / side - 0.5
    base = np.floor(x).astype(np.int64)
    t = x - base
    weights = np.stack(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ],
        axis=1,
    )
    columns = (base[:, None] + np.arange(-1, 3)) % n
    rows = np.repeat(np.arange(side), 4)
    return sparse.csr_array((weights.ravel().astype(np.float32), (rows, columns.ravel())), shape=(side, n))


def upsample(field: F32, side: int) -> F32:
    """Bicubic periodic upsampling of a work grid (n, n) to (side, side)."""
    if field.shape[0] == side:
        return field
    matrix = _upsampler(field.shape[0], side)
    tall = np.ascontiguousarray((matrix @ field).T)
    return np.ascontiguousarray(np.asarray(matrix @ tall, dtype=np.float32).T)


def noise(n: int, along: float, rng: np.random.Generator, across: float | None = None, angle: float = 0.0) -> F32:
    """Gaussian noise (n, n), zero mean and unit deviation, smoothed by an elliptical Gaussian.

    ``along`` and ``across`` are its standard deviations in cells, along direction ``angle`` and across it;
    ``across`` equals ``along`` by default.
    """
    across = along if across is None else across
    fy, fx = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]
    u = fx * np.cos(angle) + fy * np.sin(angle)
    v = fy * np.cos(angle) - fx * np.sin(angle)
    gain = np.exp(-2 * np.pi**2 * ((along * u) ** 2 + (across * v) ** 2)).astype(np.float32)
    gain[0, 0] = 0
    white = rng.standard_normal((n, n), dtype=np.float32)
    field = fft.irfft2(fft.rfft2(white) * gain, s=(n, n))
    return np.asarray(field / (field.std() + 1e-12), dtype=np.float32)


def pixel_grid(n: int, side: int) -> F64:
    """Pixel coordinates (n, n, 2) of the centres of a work grid's cells."""
    axis = (np.arange(n) + 0.5) * side / n - 0.5
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)


def warped_grid(n: int, side: int, waves: tuple[tuple[float, float], ...], rng: np.random.Generator) -> F64:
    """``pixel_grid`` displaced by smooth noise; each wave is (amplitude, smoothing), both in pixels."""
    coords = pixel_grid(n, side)
    for amplitude, sigma in waves:
        for axis in range(2):
            coords[..., axis] += amplitude * noise(n, sigma * n / side, rng)
    return coords


def at(field: F32, points: F64, side: int) -> F32:
    """Nearest work-grid values (count,) of ``field`` (n, n) at ``points``."""
    n = field.shape[0]
    cells = np.floor(points * n / side).astype(np.int64) % n
    return np.asarray(field[cells[:, 0], cells[:, 1]], dtype=np.float32)


def lattice(side: int, spacing: float, jitter: float, rng: np.random.Generator) -> F64:
    """Jittered, staggered periodic lattice of points; ``jitter`` is a share of ``spacing`` (pixels)."""
    columns = max(2, round(side / spacing))
    rows = max(2, 2 * round(side / spacing / np.sqrt(3)))
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    points = np.stack([(i + 0.5) / rows, (j + 0.25 + 0.5 * (i % 2)) / columns], axis=-1).reshape(-1, 2) * side
    return wrap(points + rng.uniform(-jitter, jitter, points.shape) * spacing, side)


def wrap(points: F64, side: int) -> F64:
    """Coordinates of any shape brought into ``[0, side)``."""
    wrapped = np.mod(points, side)
    wrapped[wrapped >= side] = 0
    return wrapped


def uniform_points(side: int, spacing: float, rng: np.random.Generator) -> F64:
    """Uniform random points (count, 2), on average one for each ``spacing`` by ``spacing`` pixels."""
    return rng.uniform(0, side, (max(1, round((side / spacing) ** 2)), 2)) % side


def hard_core(points: F64, radius: float, side: int, rounds: int = 6) -> Bool:
    """Mask (count,) of a (nearly maximal) subset in which no two points are nearer than ``radius`` pixels.

    Earlier points win; each round keeps every living point that no earlier living point crowds.
    """
    pairs = cKDTree(points, boxsize=side).query_pairs(radius, output_type="ndarray")
    alive, kept = np.ones(len(points), bool), np.zeros(len(points), bool)
    for _ in range(rounds):
        pairs = pairs[alive[pairs].all(axis=1)]
        winners = alive.copy()
        winners[pairs.max(axis=1, initial=0)] = False
        if not len(pairs):
            winners = alive
        kept |= winners
        alive = alive & ~winners
        alive[pairs[winners[pairs].any(axis=1)].ravel()] = False
        if not alive.any():
            break
    return kept


@dataclass(frozen=True)
class Cells:
    """Periodic Voronoi cells on a work grid.

    ``owner`` int64 (n, n): index of the nearest seed; ``edge`` float32 (n, n): rounded distance, in pixels,
    to the nearest cell wall (0 on it or slightly below near corners).
    """

    owner: I64
    edge: F32


def voronoi(
    seeds: F64,
    coords: F64,
    side: int,
    rounding: float,
    rng: np.random.Generator,
    neighbours: int = 3,
    open_share: float = 0.0,
) -> Cells:
    """Cells of ``seeds`` seen at ``coords`` (n, n, 2).

    ``rounding`` (pixels) rounds the corners; a share ``open_share`` of the walls is left out.
    """
    k = min(neighbours + 1, len(seeds))
    n = coords.shape[0]
    distance, index = cKDTree(seeds, boxsize=side).query(wrap(coords.reshape(-1, 2), side), k=k)
    squared = distance**2
    apart = seeds[index[:, 1:]] - seeds[index[:, :1]]
    apart -= side * np.round(apart / side)
    walls = (squared[:, 1:] - squared[:, :1]) / (2 * np.sqrt((apart**2).sum(axis=-1)) + 1e-9)
    if open_share:
        low, high = np.minimum(index[:, 1:], index[:, :1]), np.maximum(index[:, 1:], index[:, :1])
        walls[rng.random((len(seeds), len(seeds)))[low, high] < open_share] += 1e3 * rounding
    nearest = walls.min(axis=1)
    soft = nearest - rounding * np.log(np.exp((nearest[:, None] - walls) / rounding).sum(axis=1))
    return Cells(index[:, 0].reshape(n, n), soft.reshape(n, n).astype(np.float32))


def normal_angle(field: F32, sigma: float) -> F32:
    """Direction (n, n) across the level lines of ``field``, modulo pi, by a structure tensor.

    ``sigma`` is the tensor's smoothing in cells.
    """
    gy = np.roll(field, -1, 0) - np.roll(field, 1, 0)
    gx = np.roll(field, -1, 1) - np.roll(field, 1, 1)
    even = ndimage.gaussian_filter(gx * gx - gy * gy, sigma, mode="wrap")
    odd = ndimage.gaussian_filter(2 * gx * gy, sigma, mode="wrap")
    return np.asarray(0.5 * np.arctan2(odd, even), dtype=np.float32)


def fibres(
    n: int, side: int, widths: tuple[float, float], bend: tuple[float, float], rng: np.random.Generator
) -> tuple[F32, F32]:
    """Wavy fibrous texture (n, n), zero mean and unit deviation, and its local direction (n, n).

    ``widths`` are the smoothing along and across the fibres and ``bend`` is the (amplitude, smoothing) of the
    waves, all in pixels.
    """
    cell = side / n
    angle = rng.uniform(0, np.pi)
    straight = noise(n, widths[0] / cell, rng, widths[1] / cell, angle)
    shift = np.stack([bend[0] / cell * noise(n, bend[1] / cell, rng) for _ in range(2)])
    index = np.indices((n, n), dtype=np.float32) + shift
    texture = ndimage.map_coordinates(straight, index, order=1, mode="grid-wrap", output=np.float32)
    across = np.cos(angle) * shift[0] - np.sin(angle) * shift[1]
    gy = np.cos(angle) + 0.5 * (np.roll(across, -1, 0) - np.roll(across, 1, 0))
    gx = -np.sin(angle) + 0.5 * (np.roll(across, -1, 1) - np.roll(across, 1, 1))
    return np.asarray(texture, dtype=np.float32), np.arctan2(-gx, gy).astype(np.float32)


@dataclass(frozen=True)
class Nucleus:
    """A kind of nucleus: diameters ``length`` and ``width`` in pixels, haematoxylin amount ``darkness``.

    ``rim``, ``clumps`` and ``nucleoli`` are shares of ``darkness`` that membrane, chromatin and nucleoli add;
    ``irregular`` is the outline's and ``spread`` the diameters' relative deviation; ``variants`` is how many
    shapes are drawn for each direction.
    """

    length: float
    width: float
    darkness: float
    rim: float = 0.25
    clumps: float = 0.2
    nucleoli: float = 0.0
    irregular: float = 0.05
    spread: float = 0.1
    variants: int = 7


def _outline(kind: Nucleus, count: int, half: int, rng: np.random.Generator) -> tuple[F32, F32, F32]:
    """Depth below the outline in pixels and local axes, each (count, 2 half + 1, 2 half + 1)."""
    axis = np.arange(-half, half + 1, dtype=np.float32)
    y, x = axis[None, :, None], axis[None, None, :]
    bins = np.tile(np.arange(_ANGLE_BINS), kind.variants) * np.pi / _ANGLE_BINS
    angle = (bins + rng.normal(0, 0.1, count)).astype(np.float32)[:, None, None]
    size = np.clip(rng.normal(1, kind.spread, (2, count, 1, 1)), 0.6, 1.3).astype(np.float32)
    u = (x * np.cos(angle) + y * np.sin(angle)) / (0.5 * kind.length * size[0])
    v = (y * np.cos(angle) - x * np.sin(angle)) / (0.5 * kind.width * size[1])
    phi = np.arctan2(v, u)
    bumps = np.zeros_like(u)
    for order in (2, 3, 5):
        gain, phase = rng.normal(0, 1 / order**0.5, (count, 1, 1)), rng.uniform(0, 7, (count, 1, 1))
        bumps += (gain * np.cos(order * phi + phase)).astype(np.float32)
    radius = np.hypot(u, v) / (1 + np.clip(kind.irregular * bumps, -0.4, 0.4))
    return ((1 - radius) * (0.5 * min(kind.width, kind.length))).astype(np.float32), u, v


def stamps(kind: Nucleus, rng: np.random.Generator) -> F32:
    """Library (variants * 16, k, k) of haematoxylin stamps; index = variant * 16 + direction bin."""
    count = _ANGLE_BINS * kind.variants
    half = int(np.ceil(0.5 * max(kind.length, kind.width) * (1.3 + 1.5 * kind.irregular))) + 2
    depth, u, v = _outline(kind, count, half, rng)
    size = 2 * half + 1
    chromatin = noise(256, max(1.0, 0.075 * kind.width), rng)
    rows, columns = rng.integers(0, 256 - size, (2, count))
    windows = np.lib.stride_tricks.sliding_window_view(chromatin, (size, size))[rows, columns]
    rim = np.exp(-(((depth - 1.6) / 1.6) ** 2))
    tone = rng.normal(1, 0.12, (count, 1, 1)).clip(0.65, 1.35)
    body = tone * (1 + kind.clumps * windows + kind.rim * rim)
    if kind.nucleoli:
        for share in (1.0, 0.4):
            cu, cv = rng.normal(0, 0.27, (2, count, 1, 1))
            spot = np.exp(-(((u - cu) * kind.length) ** 2 + ((v - cv) * kind.width) ** 2) / (2 * 3.4**2))
            body += kind.nucleoli * (rng.random((count, 1, 1)) < share) * spot
    amount = kind.darkness * np.clip(body, 0.25, 2.2) * smoothstep(depth, -1.1, 1.3)
    return np.asarray(amount, dtype=np.float32)


def paint(canvas: F32, points: F64, angles: F32 | F64 | None, kind: Nucleus, rng: np.random.Generator) -> None:
    """Stamp nuclei of ``kind`` at ``points`` on ``canvas`` (side, side) by maximum, with wrap-around.

    ``angles`` (count,) are their long axes' directions; None means random ones.
    """
    side, library = canvas.shape[0], stamps(kind, rng)
    if angles is None:
        angles = rng.uniform(0, np.pi, len(points))
    bins = np.round(np.asarray(angles, dtype=np.float64) * _ANGLE_BINS / np.pi).astype(np.int64) % _ANGLE_BINS
    chosen = rng.integers(0, kind.variants, len(points)) * _ANGLE_BINS + bins
    size = library.shape[1]
    if size > side:
        raise ValueError(f"a nucleus of {size} px does not fit a tile of {side} px")
    padded = np.zeros((side + size, side + size), np.float32)
    corners = np.floor(points - size // 2).astype(np.int64) % side
    for (row, column), which in zip(corners.tolist(), chosen.tolist(), strict=True):
        view = padded[row : row + size, column : column + size]
        np.maximum(view, library[which], out=view)
    np.maximum(padded[:size], padded[side:], out=padded[:size])
    np.maximum(padded[:, :size], padded[:, side:], out=padded[:, :size])
    np.maximum(canvas, padded[:side, :side], out=canvas)
