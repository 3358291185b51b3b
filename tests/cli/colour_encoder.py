"""A tile encoder without weights that a model of a test can name as its own: `tests.cli.colour_encoder:colours`."""

from tests.extraction.driver import MeanColour

NAME = "tests.cli.colour_encoder:colours"


def colours(*, device, weights):
    """Return the encoder of a tile's mean colour."""
    return MeanColour(name=NAME)
