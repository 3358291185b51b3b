"""What each token of a visual prompt rests on, for every adapter: a weight for each instance of one bag.

How the Q-Former's layers are followed is said in `flow`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.chunks import Bag, as_tensor
from wsi_mivpg.mivpg.flow import Flow
from wsi_mivpg.mivpg.model import MivpgModel
from wsi_mivpg.mivpg.scenarios import HierarchicalMivpg


@torch.no_grad()
def rollout(
    adapter: nn.Module, instances: Bag, bag_sizes: Sequence[Any], coords: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Let an adapter read one bag, and follow what it reads.

    MIVPG, the plain Q-Former and full self-attention are followed through all layers, and the hierarchical adapter to
    its slides and on to their instances. Others give the mean over heads and layers of the weights that they tell.

    Args:
        adapter: in evaluation mode.
        instances: as the adapter reads them, (M, D).
        bag_sizes: one bag's, as the adapter reads them.
        coords: likewise.

    Returns:
        The visual prompt (R, hidden_size), and float (R, M): rows sum to at most 1.

    Raises:
        ModelError: the bag does not fit the adapter, or the adapter tells no weights.
    """
    flow = Flow()
    if isinstance(adapter, HierarchicalMivpg):
        images, within = adapter.pooling(as_tensor(instances), [int(size) for size in bag_sizes[0]])
        prompt = adapter.mivpg(images, [len(images)], flow=flow).visual_prompt[0]
        assert flow.queries is not None
        spread = [flow.queries[:, [place]] * weights for place, weights in enumerate(within)]
        return prompt, torch.cat(spread, dim=1)
    if isinstance(adapter, MivpgModel):
        prompt = adapter(instances, bag_sizes, coords=coords, flow=flow).visual_prompt[0]
        assert flow.queries is not None
        return prompt, flow.queries
    output = adapter(instances, bag_sizes, output_attentions=True, coords=coords)
    if not output.cross_attentions:
        raise ModelError(
            f"the adapter {type(adapter).__name__} does not tell what it reads; weigh tiles with 'gradient' or "
            "'leave-out'"
        )
    layers = torch.stack([layer[0].float().mean(dim=0) for layer in output.cross_attentions])
    return output.visual_prompt[0], layers.mean(dim=0)
