"""Maps change with the model and with what is said; afterwards the model is what it was."""

import numpy as np
import torch

from tests.evidence.conftest import DrawCase
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.evidence import label_randomisation, model_randomisation
from wsi_mivpg.evidence.sanity import rank_correlations


def test_shuffled_weights_change_the_map_and_are_put_back(taught: SlideCaptioner, draw_case: DrawCase) -> None:
    before = {name: tensor.clone() for name, tensor in taught.state_dict().items()}
    ids = taught.encode_report("necrosis")
    last = []
    for seed in range(3):
        found = model_randomisation(taught, draw_case(seed, 6, 6).case, ids, [range(1)], "leave-out", seed=seed)
        last.append(found[-1].correlations[0])
    assert [one.what for one in found] == [
        "language_projection",
        "qformer.encoder.layer.1",
        "qformer.encoder.layer.0",
        "qformer",
        "input_projection.1",
        "input_projection.0",
        "query_tokens",
    ]
    assert abs(np.mean(last)) < 0.5
    for name, tensor in taught.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_map_of_the_opposite_report_is_the_opposite_map(taught: SlideCaptioner, draw_case: DrawCase) -> None:
    ids = taught.encode_report("necrosis")
    others = [("same", ids), ("opposite", taught.encode_report("benign"))]
    found = label_randomisation(taught, draw_case(3, 6, 6).case, ids, [range(len(ids))], others, "leave-out")
    same, opposite = (one.correlations[0] for one in found)
    assert same > 0.999
    assert opposite < -0.5


def test_correlations_are_of_ranks_and_undefined_for_constant_maps() -> None:
    one = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    other = torch.tensor([[1.0, 10.0, 100.0], [3.0, 2.0, -9.0], [1.0, 2.0, 3.0]])
    same, turned, constant = rank_correlations(one, other)
    assert (round(same, 6), round(turned, 6)) == (1.0, -1.0)
    assert np.isnan(constant)
