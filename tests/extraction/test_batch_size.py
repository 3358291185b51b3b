"""The batch size is the one after which doubling is not worth it, or the last that fits."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.extraction.driver import MeanColour
from wsi_mivpg.extraction import batch_size
from wsi_mivpg.extraction.batch_size import auto_batch_size, fastest
from wsi_mivpg.extraction.lanes import CPU_BATCH_SIZE

now_s = 0.0


@pytest.fixture(autouse=True)
def a_clock_of_its_own(monkeypatch):
    """Only what `Measured` takes counts, however busy the machine is."""
    monkeypatch.setattr(batch_size, "time", SimpleNamespace(perf_counter=lambda: now_s))


class Measured(MeanColour):
    """Takes a fixed time for each call, and more where that many tiles are not faster any more."""

    device = "an accelerator"
    most_at_once = None

    def __init__(self, saturated_at=10**9, fits=10**9):
        super().__init__()
        self._saturated_at, self._fits = saturated_at, fits

    def encode(self, tiles):
        if len(tiles) > self._fits:
            self.most_at_once = self._fits
        global now_s
        now_s += 0.01 * max(1, len(tiles) / self._saturated_at)
        return np.zeros((len(tiles), 3), np.float16)


def test_a_saturated_device_gets_no_larger_batches():
    assert fastest(Measured(saturated_at=64), 8) == 64


def test_what_does_not_fit_is_not_taken():
    assert fastest(Measured(fits=40), 8) == 32


def test_the_largest_is_taken_where_it_pays():
    assert fastest(Measured(), 8) == 512


def test_a_processor_gets_small_batches_and_company_the_least():
    assert auto_batch_size([MeanColour()], 8) == CPU_BATCH_SIZE
    assert auto_batch_size([Measured(saturated_at=64), Measured(saturated_at=128)], 8) == 64
