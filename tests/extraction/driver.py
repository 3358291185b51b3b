"""Extract in a process of its own that can be killed: `python -m tests.extraction.driver FOLDER OUT [DELAY_S]`.

The encoder is the mean colour, slowed down so that there is something to interrupt. Prints what became of each slide.
"""

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_mivpg.cli import console
from wsi_mivpg.encoders import EncoderSpec
from wsi_mivpg.errors import WsiMivpgError
from wsi_mivpg.extraction import extract_many, find_slides


class MeanColour:
    """A tile encoder without weights: the mean colour."""

    def __init__(self, sha256="0" * 64, delay_s=0.0, name="mean-colour", tile_px=64):
        self.spec = EncoderSpec(
            name=name,
            dim=3,
            tile_px=tile_px,
            mpp=0.5,
            mean=(0, 0, 0),
            std=(1, 1, 1),
            licence="CC0-1.0",
            gated=False,
            weights_sha256=sha256,
        )
        self.batches = []
        self._delay_s = delay_s

    def encode(self, tiles):
        self.batches.append(len(tiles))
        time.sleep(self._delay_s)
        return tiles.mean(axis=(1, 2)).astype(np.float16)


class Quarters(MeanColour):
    """An encoder that keeps tokens: the mean colours of a picture's four quarters, row by row."""

    def __init__(self):
        super().__init__(name="quarters")
        self.spec = replace(self.spec, dim=12, n_tokens=4)

    def encode(self, tiles):
        half = tiles.shape[1] // 2
        quarters = tiles.reshape(len(tiles), 2, half, 2, half, 3).mean(axis=(2, 4))
        return quarters.reshape(len(tiles), 12).astype(np.float16)


def mean_colour(*, device, weights):
    """For `--encoder tests.extraction.driver:mean_colour`."""
    return MeanColour()


def quarters(*, device, weights):
    """For `--encoder tests.extraction.driver:quarters --patch-tokens`."""
    return Quarters()


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    folder, out, *delay = sys.argv[1:]
    encoder = MeanColour(delay_s=float(delay[0]) if delay else 0.0)
    try:
        with console.stop_on_sigterm():
            summary = extract_many(find_slides([Path(folder)]), out, [encoder], batch_size=8)
    except WsiMivpgError as error:
        print(error)
        sys.exit(1)
    states = {one.slide_id: one.state for one in summary.results}
    states |= {Path(one.slide).stem: one.error for one in summary.failures}
    print(json.dumps(states | dict.fromkeys(summary.elsewhere, "elsewhere")))


if __name__ == "__main__":
    main()
