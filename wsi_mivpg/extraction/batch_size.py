"""How many tiles to encode at once, where the user leaves that open.

Measured on the spot, in seconds: it depends on the network, the device and what else lies in its memory.
"""

import time
from collections.abc import Sequence

import numpy as np

from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.extraction.lanes import CPU_BATCH_SIZE

CANDIDATES = (16, 32, 64, 128, 256, 512)
_WORTH = 1.03
"""A larger batch is taken only where it is faster by this: it costs memory, and time at the end of a run."""


def auto_batch_size(encoders: Sequence[TileEncoder], tile_px: int) -> int:
    """Return a batch size for encoders that share their tiles: the least that suits one of them.

    On a processor it is `CPU_BATCH_SIZE`; on an accelerator the throughput of random tiles decides.
    """
    return min(_for_one(encoder, tile_px) for encoder in encoders)


def _for_one(encoder: TileEncoder, tile_px: int) -> int:
    if str(getattr(encoder, "device", "cpu")) == "cpu":
        return CPU_BATCH_SIZE
    return fastest(encoder, tile_px)


def fastest(encoder: TileEncoder, tile_px: int, candidates: Sequence[int] = CANDIDATES) -> int:
    """Return the candidate after which doubling is not worth it, or that is the last to fit the device's memory."""
    tiles = np.random.default_rng(0).integers(0, 256, (max(candidates), tile_px, tile_px, 3), dtype=np.uint8)
    best, best_rate = candidates[0], 0.0
    for size in candidates:
        encoder.encode(tiles[:size])  # warm
        began = time.perf_counter()
        for _ in range(2):
            encoder.encode(tiles[:size])
        rate = 2 * size / (time.perf_counter() - began)
        if getattr(encoder, "most_at_once", None) is not None:
            return best  # it had to go in halves
        if rate < best_rate * _WORTH:
            return best
        best, best_rate = size, rate
    return best
