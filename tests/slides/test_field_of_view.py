"""Every region shows the place that its geometry says, to within one level-0 pixel, over the whole slide."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mivpg.slides.reading import Slide

WIDTH, HEIGHT = 200_000, 150_000
GREY_PER_PX = 0.25


class Ramp:
    """A slide that is computed, not stored: grey grows along x (red) and y (green) around a chosen place."""

    name, vendor, mpp, mpp_source = "ramp", "computed", None, "file"

    def __init__(self, downsamples: tuple[float, ...], middle: tuple[float, float]) -> None:
        self.downsamples = downsamples
        self.level_sizes_px = tuple((round(WIDTH / d), round(HEIGHT / d)) for d in downsamples)
        self.middle = middle

    def read(self, x: int, y: int, level: int, size_px: tuple[int, int], out: object = None) -> np.ndarray:
        rng = np.random.default_rng((x, y, level))
        greys = []
        for start, length, middle in zip((x, y), size_px, self.middle, strict=True):
            centres_l0 = (np.arange(start, start + length) + 0.5) * self.downsamples[level]
            greys.append(127.5 + (centres_l0 - middle) * GREY_PER_PX)
        pixels = np.zeros((size_px[1], size_px[0], 3))
        pixels[..., 0] = greys[0][None, :]
        pixels[..., 1] = greys[1][:, None]
        # Dithered, so that mean greys are exact though pixels, read and resampled, are whole numbers.
        return np.clip(np.rint(pixels + rng.normal(0, 1, pixels.shape)), 0, 255).astype(np.uint8)

    def announce(self, level: int, boxes: np.ndarray) -> None:
        """Keep nothing."""

    def forget(self) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Hold nothing."""


@settings(max_examples=60, deadline=None)
@given(
    mpp=st.sampled_from([0.25, 0.2528, 0.2630, 0.26301, 0.499]),
    second=st.sampled_from([1.9996, 2.0005, 3.9998, 4.0001, 4.0007, 16.003]),
    target=st.sampled_from([0.5, 0.51, 1.0, 1.1, 2.0]),
    side=st.sampled_from([96, 224]),
    x=st.floats(0, 0.995),
    y=st.floats(0, 0.995),
    is_whole=st.booleans(),
)
def test_the_field_of_view_is_right_to_one_level_0_pixel(mpp, second, target, side, x, y, is_whole):
    corner = np.array([x * WIDTH, y * HEIGHT])
    corner = np.rint(corner) if is_whole else corner
    side_l0 = side * target / mpp
    if side_l0 * GREY_PER_PX > 200:
        side = int(200 / GREY_PER_PX / target * mpp)
        side_l0 = side * target / mpp
    corner = np.minimum(corner, np.floor([WIDTH - side_l0 - 8, HEIGHT - side_l0 - 8]))
    reader = Ramp((1.0, second), tuple(corner + side_l0 / 2))
    with Slide(Path("ramp"), reader, mpp, "file") as slide:
        seen = slide.read_region(float(corner[0]), float(corner[1]), side, target).astype(float)
    for axis in (0, 1):
        grey = seen[..., axis].mean(axis=axis)
        # The line through all pixels, at the two ends of the field of view.
        slope, middle = np.polyfit(np.arange(side) + 0.5 - side / 2, grey, 1)
        for end in (-side / 2, side / 2):
            place_l0 = (middle + slope * end - 127.5) / GREY_PER_PX
            assert place_l0 == pytest.approx(end * target / mpp, abs=1.0)
