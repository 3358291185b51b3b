"""Area resampling: each output pixel is the mean of the source area that it covers. Arrays in, arrays out."""

import cv2
import numpy as np
import numpy.typing as npt

from wsi_mivpg.slides.readers.base import Pixels

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in source pixels."""

_WHOLE = 1e-6


def resample(source: Pixels, box: Box, size_px: tuple[int, int], out: Pixels | None = None) -> Pixels:
    """Resample a box of uint8[h, w, 3] to `size_px` (width, height); enlarging interpolates linearly.

    The box may begin and end between pixels; it must lie inside the source. `out` is memory for the result,
    uint8[height, width, 3], apart from the source; it need not be what is returned.
    """
    width, height = size_px
    left, top, right, bottom = box
    if right - left < width - _WHOLE or bottom - top < height - _WHOLE:
        return _enlarged(source, box, size_px)
    if all(abs(edge - round(edge)) < _WHOLE for edge in box):
        inside = source[round(top) : round(bottom), round(left) : round(right)]
        if inside.shape[:2] == (height, width):
            return inside.copy()
        return cv2.resize(inside, size_px, dst=out, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    by_rows = _mean_along_rows(source, np.linspace(top, bottom, height + 1))
    by_columns = _mean_along_rows(by_rows.swapaxes(0, 1), np.linspace(left, right, width + 1)).swapaxes(0, 1)
    return np.ascontiguousarray(np.rint(by_columns)).astype(np.uint8)


def _enlarged(source: Pixels, box: Box, size_px: tuple[int, int]) -> Pixels:
    """Interpolate linearly between pixel centres, which lie at halves; the source's rim is continued outside."""
    scale_x, scale_y = (box[2] - box[0]) / size_px[0], (box[3] - box[1]) / size_px[1]
    from_output = np.array([[scale_x, 0, box[0] + (scale_x - 1) / 2], [0, scale_y, box[1] + (scale_y - 1) / 2]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    enlarged = cv2.warpAffine(source, from_output, size_px, flags=how, borderMode=cv2.BORDER_REPLICATE)
    return enlarged.astype(np.uint8, copy=False)


def _mean_along_rows(values: npt.NDArray[np.generic], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of (n, ...) between consecutive `edges` along the first axis; float64 (len(edges) - 1, ...)."""
    total = np.zeros((len(values) + 1, *values.shape[1:]), dtype=np.float64)
    np.cumsum(values, axis=0, out=total[1:])
    whole = np.minimum(edges.astype(np.int64), len(values) - 1)
    part = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    at_edges = total[whole] + part * (total[whole + 1] - total[whole])
    widths = np.diff(edges).reshape(-1, *[1] * (values.ndim - 1))
    mean: npt.NDArray[np.float64] = np.diff(at_edges, axis=0) / widths
    return mean
