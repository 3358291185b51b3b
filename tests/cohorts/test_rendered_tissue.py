"""The procedural H&E renderer: determinism, seamless edges, and looks that tell the labels apart."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from wsi_mivpg.cohorts.rendered_tissue import LABELS, MIN_SIDE_PX, Stain, random_stain, render

SIDE = 640
PLAIN = Stain(np.array([0.65, 0.70, 0.29]), np.array([0.15, 0.90, 0.40]), 1.0, 1.0)


@pytest.fixture(scope="module")
def tiles() -> dict[str, NDArray[np.uint8]]:
    """One 160 µm tile of every label, all with the same stain."""
    return {label: render(label, SIDE, PLAIN, np.random.default_rng(7)) for label in LABELS}


def _nuclei(tile: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with much haematoxylin by colour deconvolution with the plain stain, cleaned of specks."""
    density = -np.log(np.maximum(tile.astype(float), 1) / 255)
    dyes = np.stack([PLAIN.haematoxylin, PLAIN.eosin], axis=1)
    amounts = density @ np.linalg.pinv(dyes).T
    mask = ndimage.gaussian_filter(amounts[..., 0], 1.0) > 0.5
    return np.asarray(ndimage.binary_opening(mask, iterations=2), dtype=bool)


@pytest.mark.parametrize("label", LABELS)
def test_shape_type_and_determinism(label: str, tiles: dict[str, NDArray[np.uint8]]) -> None:
    tile = tiles[label]
    assert tile.shape == (SIDE, SIDE, 3)
    assert tile.dtype == np.uint8
    assert np.array_equal(tile, render(label, SIDE, PLAIN, np.random.default_rng(7)))
    other = render(label, SIDE, PLAIN, np.random.default_rng(8))
    assert np.mean(tile != other) > 0.3


@pytest.mark.parametrize("side", [SIDE, 513])
@pytest.mark.parametrize("label", LABELS)
def test_edges_meet(label: str, side: int) -> None:
    """The step across the seam is no larger than the steps between inner neighbours usually are."""
    tile = render(label, side, PLAIN, np.random.default_rng(3)).astype(float)
    for axis in (0, 1):
        steps = np.abs(np.diff(tile, axis=axis, append=np.take(tile, [0], axis=axis)))
        profile = steps.mean(axis=(1 - axis, 2))
        assert profile[-1] <= profile[:-1].mean() + 4 * profile[:-1].std()
        assert profile[-1] <= 1.05 * profile[:-1].max()


def test_nuclear_cover_orders_the_labels(tiles: dict[str, NDArray[np.uint8]]) -> None:
    cover = {label: float(_nuclei(tile).mean()) for label, tile in tiles.items()}
    assert cover["lymphoid"] > cover["glandular_tumour"] > cover["keratinising_tumour"] > cover["stroma"]
    assert cover["lymphoid"] > 0.4
    assert 0.005 < cover["parenchyma"] < 0.15
    assert cover["necrosis"] < 0.5 * cover["keratinising_tumour"]


def test_lumina_and_airspaces_are_bright(tiles: dict[str, NDArray[np.uint8]]) -> None:
    bright = {label: float((tile.min(axis=-1) > 225).mean()) for label, tile in tiles.items()}
    assert bright["parenchyma"] > 0.5
    assert 0.02 < bright["glandular_tumour"] < 0.5
    assert max(bright[label] for label in ("keratinising_tumour", "lymphoid", "necrosis")) < 0.05


def test_stroma_is_fibrous_and_necrosis_is_not(tiles: dict[str, NDArray[np.uint8]]) -> None:
    def coherence(tile: NDArray[np.uint8]) -> float:
        grey = ndimage.gaussian_filter(tile[..., 1].astype(float), 1.5, mode="wrap")
        gy, gx = np.gradient(grey)
        xx, yy, xy = (ndimage.gaussian_filter(f, 12, mode="wrap") for f in (gx * gx, gy * gy, gx * gy))
        return float(np.mean(np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-9)))

    assert coherence(tiles["stroma"]) > 0.5 > coherence(tiles["necrosis"])


def test_stains_vary_and_are_physical() -> None:
    stains = [random_stain(np.random.default_rng(seed)) for seed in range(40)]
    assert all(s.haematoxylin.shape == s.eosin.shape == (3,) for s in stains)
    assert all((s.haematoxylin > 0).all() and (s.eosin > 0).all() for s in stains)
    assert all(s.haematoxylin[0] > s.eosin[0] / np.linalg.norm(s.eosin) * 0.5 for s in stains)
    assert np.ptp([s.intensity for s in stains]) > 0.3
    assert np.ptp([s.scale for s in stains]) > 0.15
    assert random_stain(np.random.default_rng(1)).scale == random_stain(np.random.default_rng(1)).scale


def test_mean_colours_of_labels_overlap_between_slides() -> None:
    """With random stains the ranges of mean red of the solid tissues overlap: colour alone decides little."""
    ranges = []
    for label in ("keratinising_tumour", "stroma", "necrosis"):
        reds = []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            reds.append(float(render(label, MIN_SIDE_PX, random_stain(rng), rng)[..., 0].mean()))
        ranges.append((min(reds), max(reds)))
    assert max(low for low, _ in ranges) < min(high for _, high in ranges)


def test_scale_enlarges_nuclei() -> None:
    def width(scale: float) -> float:
        stain = Stain(PLAIN.haematoxylin, PLAIN.eosin, 1.0, scale)
        mask = _nuclei(render("keratinising_tumour", SIDE, stain, np.random.default_rng(5)))
        sizes = np.bincount(ndimage.label(mask)[0].ravel())[1:]
        return float(np.median(sizes[sizes > 150]))

    assert width(1.16) > 1.15 * width(0.86)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown tissue label"):
        render("bone", SIDE, PLAIN, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least"):
        render("stroma", MIN_SIDE_PX - 1, PLAIN, np.random.default_rng(0))
