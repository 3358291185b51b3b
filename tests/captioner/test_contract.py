"""A model says which bags it may read; others are refused with both values, or named where a user insists."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.provenance import PROVENANCE, bag_on_disk
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaptionerConfig, forced_differences, tissue_settings
from wsi_mivpg.captioner.contract import refuse_other_bags
from wsi_mivpg.errors import ModelError

TRAINED_ON: dict[str, Any] = {
    "encoder": "some-encoder",
    "feature_dim": 12,
    "target_mpp": 0.5,
    "tile_px": 224,
    "tissue": {"segmenter": "test", "min_tissue": 0.25},
}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder": "other"}, "encoder 'other', but this model was trained on 'some-encoder'"),
        ({"target_mpp": 0.25}, "target_mpp 0.25, but this model was trained on 0.5"),
        ({"tile_px": 256}, "tile_px 256, but this model was trained on 224"),
        ({"tissue_method": "hsv/1"}, "tissue found by 'hsv/1', but this model was trained on 'test'"),
        ({"min_tissue": 0.5}, "least tissue share of a tile 0.5, but this model was trained on 0.25"),
    ],
)
def test_a_bag_that_differs_is_refused_with_both_values_and_named_where_somebody_insists(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    config = CaptionerConfig(**TRAINED_ON)
    bag = bag_on_disk(tmp_path / "bag.h5", replace(PROVENANCE, **changes))
    with pytest.raises(ModelError, match=named):
        refuse_other_bags(config, bag)
    assert forced_differences(config, bag) == (f"bag of slide 's1' has {named}",)
    fitting = bag_on_disk(tmp_path / "fitting.h5")
    refuse_other_bags(config, fitting)
    assert forced_differences(config, fitting) == ()


def test_nobody_can_insist_on_features_of_another_width(tmp_path: Path) -> None:
    bag = bag_on_disk(tmp_path / "bag.h5", replace(PROVENANCE, feature_dim=8))
    with pytest.raises(ModelError, match="feature_dim 8, but this model was trained on 12"):
        forced_differences(CaptionerConfig(**TRAINED_ON), bag)


def test_what_a_bag_does_not_state_is_named_where_somebody_insists(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", np.zeros((3, 12), np.float32))
    bag = FeatureBag.open(tmp_path / "bare.npy")
    found = forced_differences(CaptionerConfig(**TRAINED_ON), bag)
    assert found == ("bag of slide 'bare' does not state its encoder, target_mpp, tile_px",)


def test_drawn_tissue_is_one_segmenter_whatever_was_drawn(tmp_path: Path) -> None:
    bags = [
        bag_on_disk(tmp_path / f"{n}.h5", replace(PROVENANCE, tissue_method=f"geojson:{n}{n}"), count=2) for n in (1, 2)
    ]
    assert [tissue_settings(bag) for bag in bags] == [{"segmenter": "geojson", "min_tissue": 0.25}] * 2


def test_a_contract_that_says_too_little_is_refused() -> None:
    with pytest.raises(ModelError, match="needs segmenter and min_tissue"):
        CaptionerConfig(tissue={"segmenter": "otsu"})
    with pytest.raises(ModelError, match="max_instances is 0"):
        CaptionerConfig(max_instances=0)
