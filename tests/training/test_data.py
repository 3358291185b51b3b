"""Batches are drawn by seed, and cases whose bags were made differently are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.provenance import PROVENANCE
from wsi_mivpg.bags import write_bag
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError
from wsi_mivpg.training.data import Collator, Example, made_alike


def _case(folder: Path, slide_id: str, **changes: Any) -> Case:
    path = folder / f"{slide_id}.h5"
    provenance = replace(PROVENANCE, slide_id=slide_id, feature_dim=6, **changes)
    write_bag(path, np.zeros((3, 6), np.float16), np.zeros((3, 2), np.int64), np.ones(3, np.float32), provenance)
    return Case(slide_id, (), (path,), ("a report",), "train")


def test_the_same_seed_draws_the_same_batch_and_the_next_batch_differs() -> None:
    examples = [Example(str(i), torch.randn(10, 6).half(), ((1, 2), (3, 4, 5))) for i in range(8)]
    one, two = Collator(0, 0.5), Collator(0, 0.5)
    first, second, again = one(examples), one(examples), two(examples)
    assert torch.equal(first["instances"], again["instances"])
    assert torch.equal(first["labels"], again["labels"])
    assert first["slide_sizes"] != second["slide_sizes"]


def test_a_batch_keeps_at_least_the_promised_share_of_each_bag() -> None:
    examples = [Example(str(i), torch.randn(10, 6).half(), ((1, 2),)) for i in range(50)]
    batch = Collator(0, 0.3)(examples)
    assert sum(size for (size,) in batch["slide_sizes"]) == len(batch["instances"])
    assert 7 <= min(batch["slide_sizes"])[0] < max(batch["slide_sizes"])[0] == 10


@pytest.mark.parametrize(("name", "value"), [("target_mpp", 0.25), ("encoder", "other"), ("tile_px", 256)])
def test_bags_made_differently_are_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    cases = [_case(tmp_path, "s1"), _case(tmp_path, "s2", **{name: value})]
    assert made_alike(cases[:1]).slide_id == "s1"
    with pytest.raises(CohortError, match=f"'s1' and 's2' differ in {name}"):
        made_alike(cases)
