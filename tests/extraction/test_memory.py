"""Freed memory is kept: a block that is freed and asked for again costs no page faults the second time."""

import subprocess
import sys

import pytest

from wsi_mivpg.extraction.memory import keep_freed_memory

_PROBE = """
import resource, sys
import numpy as np
from wsi_mivpg.extraction.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(50_000_000, dtype=np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_block_that_is_freed_and_asked_for_again_costs_no_page_faults():
    if not keep_freed_memory():
        pytest.skip("not glibc")
    faults = [
        int(subprocess.run([sys.executable, "-c", _PROBE, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "as it is")
    ]
    assert faults[0] * 5 < faults[1]
