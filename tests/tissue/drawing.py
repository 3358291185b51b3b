"""Stained tissue, glass and marker ink with known truth, drawn at the mask's resolution by adding optical densities."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

MPP = 8.0
GLASS = np.array((243.0, 242.0, 244.0))

# Optical density of red, green and blue light for one unit of each stain, as measured on scanned slides.
HAEMATOXYLIN = np.array((0.55, 0.78, 0.41))
EOSIN = np.array((0.16, 0.86, 0.55))
DAB = np.array((0.27, 0.57, 0.78))
# The counterstain of immunohistochemistry is greyer.
COUNTERSTAIN = np.array((0.67, 0.61, 0.41))

# Colours of ink on white glass.
INKS = {
    "red": (214, 46, 66),
    "dark red": (190, 18, 20),
    "orange": (240, 120, 20),
    "green": (57, 168, 149),
    "grass green": (50, 150, 60),
    "dark green": (20, 90, 70),
    "blue": (59, 116, 203),
    "dark blue": (25, 40, 150),
    "cyan": (60, 170, 220),
    "black": (40, 36, 42),
    "purplish black": (70, 36, 55),
}

Box = tuple[int, int, int, int]


def densities(shape: tuple[int, int]) -> np.ndarray:
    """Return the optical density of empty glass, float64[H, W, 3]."""
    return np.zeros((*shape, 3))


def stain(density: np.ndarray, where: np.ndarray, kind: str, seed: int = 0) -> None:
    """Add tissue of a kind to `density` where a mask says: a ground, and nuclei that vary from pixel to pixel."""
    random = np.random.default_rng(seed)
    ground, ground_amount, nuclear, nuclear_amount = {
        "H&E": (EOSIN, 0.22, HAEMATOXYLIN, 0.22),
        "pale H&E": (EOSIN, 0.06, HAEMATOXYLIN, 0.03),
        "eosin only": (EOSIN, 0.45, HAEMATOXYLIN, 0.02),
        "lymphoid": (EOSIN, 0.15, HAEMATOXYLIN, 0.75),
        "DAB": (COUNTERSTAIN, 0.08, DAB, 0.60),
        "blue IHC": (COUNTERSTAIN, 0.08, COUNTERSTAIN, 0.25),
    }[kind]
    amount = random.gamma(4, nuclear_amount / 4, size=where.shape)
    texture = ground * ground_amount * random.uniform(0.8, 1.2, size=where.shape)[..., None]
    density[where] += (texture + nuclear * amount[..., None])[where]


def stroke(density: np.ndarray, points: list[tuple[int, int]], width_px: int, ink: str, blur_px: float = 1.0) -> Image:
    """Add a marker's stroke through (x, y) points and return where it is, bool[H, W]."""
    height, width = density.shape[:2]
    drawn = Image.new("L", (width, height))
    ImageDraw.Draw(drawn).line(points, fill=255, width=width_px, joint="curve")
    amount = np.asarray(drawn.filter(ImageFilter.GaussianBlur(blur_px))) / 255
    density += amount[..., None] * -np.log10(np.array(INKS[ink]) / GLASS)
    return amount > 0.02


def picture(density: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return uint8[H, W, 3] of the light that passes, with a camera's noise."""
    noise = np.random.default_rng(seed).normal(0, 1.5, size=density.shape)
    return np.clip(GLASS * 10**-density + noise, 0, 255).astype(np.uint8)


def ellipse(shape: tuple[int, int], centre: tuple[int, int], radii: tuple[int, int]) -> np.ndarray:
    """Return the mask bool[H, W] of an ellipse given as (x, y) and (rx, ry)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 <= 1


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return float((found & truth).sum() / max((found | truth).sum(), 1))
