"""Tile encoders without weights that a model of a test can name as its own: `tests.cli.colour_encoder:colours`."""

import os
import time
from pathlib import Path

from tests.extraction.driver import MeanColour

NAME = "tests.cli.colour_encoder:colours"
WAITING_NAME = "tests.cli.colour_encoder:waiting_colours"
WAITS_FOR = "WSI_MIVPG_TEST_WAITS_FOR"
MARK = 20
"""Least blue that any other tile has."""


def colours(*, device, weights):
    """Return the encoder of a tile's mean colour."""
    return MeanColour(name=NAME)


class WaitingColour(MeanColour):
    """Encodes a tile without blue only when the file that the environment names is there."""

    def encode(self, tiles):
        deadline = time.monotonic() + 60
        while (tiles[..., 2].mean(axis=(1, 2)) < MARK).any() and not Path(os.environ[WAITS_FOR]).exists():
            assert time.monotonic() < deadline, "what this encoder waits for never came"
            time.sleep(0.02)
        return super().encode(tiles)


def waiting_colours(*, device, weights):
    """Return the encoder that waits."""
    return WaitingColour(name=WAITING_NAME)
