"""The paper's three kinds of sample, packed for an adapter: one image, many images, many images of many patches.

Bags may have any number of images and images any number of patches; nothing is padded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.baselines import GatedAttentionPooling
from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.model import MivpgModel, MivpgOutput, checked_sizes, input_dim
from wsi_mivpg.mivpg.ppeg import NO_CELL


@dataclass(frozen=True)
class PackedBags:
    """B bags one after another, as `MivpgModel.forward` takes them: ``model(**vars(packed))``.

    Attributes:
        instances: float, (M_total, D).
        bag_sizes: B positive integers that sum to M_total.
        coords: int64, (M_total, 3): each instance's (column, row, image of the bag); ``None`` where unknown.
    """

    instances: Tensor
    bag_sizes: list[int]
    coords: Tensor | None


def one_image(images: Sequence[Tensor], shapes: Sequence[tuple[int, int]] | None = None) -> PackedBags:
    """Scenario 1: each image is a bag of its ViT's patch tokens, the class token first.

    The patches lie in the ViT's grid, row by row; the class token has no cell, so that PPEG leaves it as it is.

    Args:
        images: per image float (1 + P, D); P may differ between images.
        shapes: (columns, rows) of each image's patches; by default square.

    Raises:
        ModelError: an image's patches do not fill its grid.
    """
    square = [(math.isqrt(len(tokens) - 1), math.isqrt(len(tokens) - 1)) for tokens in images]
    coords = []
    for index, (tokens, (columns, rows)) in enumerate(zip(images, shapes or square, strict=True)):
        if columns * rows != len(tokens) - 1:
            raise ModelError(
                f"image {index} has {len(tokens) - 1} patch tokens after its class token, which do not fill a grid of "
                f"{columns} columns and {rows} rows; give its (columns, rows) as shapes"
            )
        patch = torch.arange(columns * rows, device=tokens.device)
        cells = torch.stack([patch % columns, patch // columns, torch.zeros_like(patch)], dim=1)
        coords.append(torch.cat([cells.new_tensor([[NO_CELL, NO_CELL, 0]]), cells]))
    return PackedBags(torch.cat(list(images)), [len(tokens) for tokens in images], torch.cat(coords))


def many_images(cases: Sequence[Sequence[Tensor]], cells: Sequence[Sequence[Tensor]] | None = None) -> PackedBags:
    """Scenario 2: each case is a bag of embeddings, one per tile, from one slide or several.

    Args:
        cases: per case, per slide float (M, D): the tiles' embeddings.
        cells: likewise int (M, 2): the tiles' (column, row), a bag's `grid`; ``None`` where unknown.

    Raises:
        ModelError: a slide has not as many cells as tiles.
    """
    slides = [slide for case in cases for slide in case]
    sizes = [sum(len(slide) for slide in case) for case in cases]
    if cells is None:
        return PackedBags(torch.cat(slides), sizes, None)
    coords = []
    for case, case_cells in zip(cases, cells, strict=True):
        for index, (slide, slide_cells) in enumerate(zip(case, case_cells, strict=True)):
            if len(slide) != len(slide_cells):
                raise ModelError(f"slide {index} of a case has {len(slide)} tiles but {len(slide_cells)} cells")
            at = slide_cells.long()
            coords.append(torch.cat([at, at.new_full((len(at), 1), index)], dim=1))
    return PackedBags(torch.cat(slides), sizes, torch.cat(coords))


class HierarchicalMivpg(nn.Module):
    """Scenario 3: gated attention pools each image's patches to one embedding; MIVPG reads a case's images.

    An image is a photograph of its patches, or a slide of its tiles. Both steps are multiple instance learning (the
    paper's section on many images of many patches); both ignore order.
    """

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__()
        self.input_dim = input_dim(config)
        self.pooling = GatedAttentionPooling(self.input_dim)
        self.mivpg = MivpgModel(config)

    def forward(
        self,
        instances: Tensor,
        bag_sizes: Sequence[Sequence[int]],
        output_attentions: bool = False,
        **_: Any,
    ) -> MivpgOutput:
        """Turn cases of images of patches into visual prompts.

        Args:
            instances: float, (P_total, D): patches, image after image, case after case.
            bag_sizes: per case, per image its number of patches.
            output_attentions: also return, per layer and case, how much each *patch* was read, (heads, R, P_case):
                the image's cross-attention weight times the patch's weight within its image; rows sum to 1.

        Raises:
            ModelError: an image or a case is empty, or sizes and instances do not fit.
        """
        patches = checked_sizes(instances, [size for case in bag_sizes for size in case], self.input_dim)
        images, within = self.pooling(instances, patches)
        per_case = [len(case) for case in bag_sizes]
        output: MivpgOutput = self.mivpg(images, per_case, output_attentions=output_attentions)
        if output.cross_attentions is None:
            return output
        spread = tuple(
            tuple(
                torch.cat([weights[..., [place]] * one for place, one in enumerate(case_within)], dim=-1)
                for weights, case_within in zip(layer, _per_case(within, per_case), strict=True)
            )
            for layer in output.cross_attentions
        )
        return MivpgOutput(output.visual_prompt, spread)


def _per_case(images: tuple[Tensor, ...], counts: list[int]) -> list[tuple[Tensor, ...]]:
    starts = [sum(counts[:index]) for index in range(len(counts))]
    return [images[start : start + count] for start, count in zip(starts, counts, strict=True)]
