"""Area resampling against its definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsi_mivpg.slides.resample import resample


def weights(start: float, stop: float, count: int, length: int) -> np.ndarray:
    """Return float64 (count, length): how much of each source pixel every output pixel covers."""
    edges = np.linspace(start, stop, count + 1)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, None) / np.diff(edges)[:, None]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(1.0, 5.0),
    st.floats(1.0, 5.0),
    st.floats(0, 3),
    st.floats(0, 3),
    st.booleans(),
)
def test_each_pixel_is_the_mean_of_the_area_that_it_covers(seed, width, height, sx, sy, left, top, is_whole):
    box = (left, top, left + sx * width, top + sy * height)
    if is_whole:
        left, top = round(left), round(top)
        box = (left, top, left + max(width, round(sx * width)), top + max(height, round(sy * height)))
    shape = (int(np.ceil(box[3])) + 1, int(np.ceil(box[2])) + 1, 3)
    source = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    seen = resample(source, box, (width, height))
    rows = weights(box[1], box[3], height, shape[0])
    columns = weights(box[0], box[2], width, shape[1])
    expected = np.einsum("ia,abc,jb->ijc", rows, source.astype(float), columns)
    assert seen.dtype == np.uint8
    assert np.abs(seen - expected).max() <= 0.5 + 1e-3


def test_native_pixels_are_untouched():
    source = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(resample(source, (3, 4, 13, 11), (10, 7)), source[4:11, 3:13])
