"""Pictures and drawings as text inside a page: data URIs, outlines, scale bars."""

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def jpeg_uri(image: NDArray[np.uint8]) -> str:
    """Return a data URI of uint8 (h, w, 3)."""
    return _uri(image, "jpeg", quality=90)


def jpeg_bytes(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Return uint8 (h, w, 3) as a JPEG file."""
    return _encoded(image, "jpeg", quality=quality)


def png_uri(image: NDArray[np.uint8]) -> str:
    """Return a data URI of uint8 (h, w, 4), exact."""
    return _uri(image, "png")


def shrunk(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Return the picture with sides of at most `side_px`."""
    picture = Image.fromarray(image)
    picture.thumbnail((side_px, side_px))
    return np.asarray(picture, np.uint8)


def path_data(polygon: NDArray[np.floating]) -> str:
    """Return a closed SVG path of points (K, 2), rounded to whole pixels."""
    points = " L".join(f"{x:.0f} {y:.0f}" for x, y in np.asarray(polygon, np.float64).reshape(-1, 2))
    return f"M{points} Z" if points else ""


def scale_bar(width_px: int, mpp: float) -> dict[str, Any]:
    """Return a round length (1, 2 or 5 times a power of ten) of at most a fifth of the slide's width."""
    limit_um = width_px * mpp / 5
    power = 10 ** math.floor(math.log10(limit_um))
    length_um = next(step * power for step in (5, 2, 1) if step * power <= limit_um)
    label = f"{length_um / 1000:g}\u202fmm" if length_um >= 1000 else f"{length_um:g}\u202fµm"
    return {"percent": 100 * length_um / mpp / width_px, "label": label}


def _uri(image: NDArray[np.uint8], kind: str, **options: Any) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(_encoded(image, kind, **options)).decode()}"


def _encoded(image: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, kind, **options)
    return stream.getvalue()
