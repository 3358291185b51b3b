"""A tile encoder for jobs that are to be killed: slow, and with a dark slide in need of much memory.

`extract --encoder tests.slurm.encoder:slow_colours`.
"""

import numpy as np

from tests.extraction.driver import MeanColour

NAME = "tests.slurm.encoder:slow_colours"
DELAY_S = 0.15
DARK = 100
MUCH_BYTES = 600 * 2**20


class SlowColours(MeanColour):
    """The mean colour of a tile."""

    def __init__(self) -> None:
        super().__init__(name=NAME, delay_s=DELAY_S)
        self.held = None

    def encode(self, tiles):
        features = super().encode(tiles)
        if self.held is None and features.mean() < DARK:
            self.held = np.ones(MUCH_BYTES, np.uint8)
        return features


def slow_colours(*, device, weights):
    """Return the encoder; it needs neither device nor weights."""
    return SlowColours()
