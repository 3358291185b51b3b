"""MIVPG: learnable queries read a bag of instances and become the visual prompt of a language model.

What bags are read together, whole or in chunks, is decided here; how they are read is the Q-Former's, in `qformer`.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.absorbed import Stream
from wsi_mivpg.mivpg.attention import Bags, Packed, ZeroStartLinear
from wsi_mivpg.mivpg.chunks import Bag, as_tensor, chunk_length, first_not_finite, project, split, spool
from wsi_mivpg.mivpg.configuration import MivpgConfig
from wsi_mivpg.mivpg.flow import Flow
from wsi_mivpg.mivpg.ppeg import PpegLayout, ZeroStartConv2d, grid_layout, sequence_layout
from wsi_mivpg.mivpg.qformer import QFormer


@dataclass(frozen=True)
class MivpgOutput:
    """What `MivpgModel` returns.

    Attributes:
        visual_prompt: float, (B, R, hidden_size).
        cross_attentions: per cross-attention layer, per bag, float (heads, R, M_b), each row summing to 1;
            ``None`` unless asked for.
    """

    visual_prompt: Tensor
    cross_attentions: tuple[tuple[Tensor, ...], ...] | None


class MivpgModel(PreTrainedModel):
    """Bags of instances -> visual prompts of R tokens each. Invariant to the order of a bag's instances."""

    config_class = MivpgConfig
    base_model_prefix = "mivpg"
    main_input_name = "instances"
    config: MivpgConfig

    def __init__(self, config: MivpgConfig) -> None:
        super().__init__(config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.hidden_size))
        self.qformer = QFormer(config)
        self.input_projection: nn.Sequential | None = None
        if config.input_dim is not None:
            self.input_projection = nn.Sequential(
                nn.LayerNorm(config.input_dim), nn.Linear(config.input_dim, config.encoder_hidden_size)
            )
        cast(Any, self).post_init()  # untyped in transformers

    @classmethod
    def from_blip2(
        cls,
        path_or_id: str | Path,
        *,
        config: MivpgConfig | None = None,
        kv: Literal["pretrained", "fresh"] = "pretrained",
        revision: str | None = None,
    ) -> "MivpgModel":
        """Start from the Q-Former of BLIP-2 or InstructBLIP; see `load_blip2`, which also gives the projection.

        Raises:
            ModelError: the checkpoint is not found, damaged, or does not fit.
        """
        from wsi_mivpg.mivpg.pretrained import load_blip2  # which builds this class

        return load_blip2(path_or_id, config=config, kv=kv, revision=revision).model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers skips modules without parameters of their own, so that a zero start must sit in the Linear.
        if isinstance(module, ZeroStartLinear | ZeroStartConv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(cast(Tensor, module.bias))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MivpgModel):
            nn.init.normal_(module.query_tokens, std=self.config.initializer_range)

    def forward(
        self,
        instances: Bag,
        bag_sizes: Sequence[int] | Tensor,
        output_attentions: bool = False,
        coords: Tensor | None = None,
        flow: Flow | None = None,
        **_: Any,
    ) -> MivpgOutput:
        """Turn packed bags into visual prompts.

        Bags of at least `absorb_from` instances are read one by one in chunks; all others together.

        Args:
            instances: float, (M_total, D): the bags' instances, one bag after another; D is `input_dim`,
                or `encoder_hidden_size` without an input projection. A NumPy array, such as a bag's
                `features_view()`, is read in chunks and need not fit into memory; without gradients only.
            bag_sizes: B positive integers that sum to M_total.
            output_attentions: also return the cross-attention weights (needs memory heads x R x M_total per layer).
            coords: int, (M_total, 2) or (M_total, 3): each instance's cell, see `grid_layout`; read if `ppeg` is
                "grid" alone.
            flow: follows one bag; see `Flow`.

        Raises:
            ModelError: a bag is empty, an instance is NaN or infinite, sizes and instances do not fit, cells are
                needed and unknown, or a long bag cannot be read as asked.
        """
        sizes = checked_sizes(instances, bag_sizes, input_dim(self.config))
        _refuse_not_finite(instances, sizes)
        prompts: dict[int, Tensor] = {}
        weights: dict[int, tuple[Tensor, ...]] = {}
        for places, bags in self._runs(instances, sizes, coords):
            queries = self.query_tokens.expand(len(places), -1, -1)
            run_prompts, run_weights = self.qformer(queries, bags, output_attentions, flow)
            prompts.update(zip(places, run_prompts, strict=True))
            if output_attentions:
                weights.update(zip(places, zip(*run_weights, strict=True), strict=True))
        order = range(len(sizes))
        layers = tuple(zip(*(weights[place] for place in order), strict=True)) if output_attentions else None
        return MivpgOutput(torch.stack([prompts[place] for place in order]), layers)

    def _runs(self, instances: Bag, sizes: list[int], coords: Tensor | None) -> Iterator[tuple[list[int], Bags]]:
        """Yield what the Q-Former reads at a time, with the bags' places: short ones at once, then each long one."""
        limit = self.config.absorb_from
        long = [place for place, size in enumerate(sizes) if limit is not None and size >= limit]
        short = [place for place in range(len(sizes)) if place not in long]
        bags = split(instances, sizes)
        layout = self._layouts(sizes, coords)
        if long:
            self._check_long(instances, max(sizes))
        if short:
            like = self.query_tokens
            packed = torch.cat([as_tensor(bags[place]) for place in short]) if long else as_tensor(instances)
            packed = packed.to(like.device, like.dtype)
            packed = packed if self.input_projection is None else self.input_projection(packed)
            yield short, Packed(packed, [sizes[place] for place in short], layout(short))
        for place in long:
            yield [place], self._stream(bags[place], layout([place]))

    def _layouts(self, sizes: list[int], coords: Tensor | None) -> Callable[[list[int]], PpegLayout | None]:
        """Return what makes the PPEG layout of some bags, given their places."""
        kind, device = self.config.ppeg, self.query_tokens.device
        if kind == "grid" and (coords is None or len(coords) != sum(sizes)):
            grid_layout(coords, sizes)  # which says what is wrong
        cells = coords.to(device).split(sizes) if kind == "grid" and coords is not None else ()

        def layout(places: list[int]) -> PpegLayout | None:
            own = [sizes[place] for place in places]
            if kind == "grid":
                return grid_layout(torch.cat([cells[place] for place in places]), own)
            return sequence_layout(own, device=device) if kind == "sequence" else None

        return layout

    def _stream(self, bag: Bag, layout: PpegLayout | None) -> Stream:
        """Cut a long bag into chunks of what the Q-Former reads."""
        like, projection = self.query_tokens, self.input_projection
        chunks = split(bag, chunk_length(self.config.chunk_size, like.device))
        changes = self.config.csa_carry == "cumulative" and len(self.config.layers_with_csa) > 0
        if isinstance(bag, Tensor):
            chunks = chunks if projection is None else project(chunks, projection, like)
        elif projection is not None or changes:
            chunks = spool(chunks, projection, like)
        return Stream(chunks, like, layout)

    def _check_long(self, instances: Bag, size: int) -> None:
        if self.training and self.config.attention_probs_dropout_prob > 0:
            raise ModelError(
                f"attention_probs_dropout_prob is {self.config.attention_probs_dropout_prob}, which a bag of {size} "
                "instances cannot be trained with: from absorb_from on, weights are never held; set it to 0, or "
                "absorb_from to None where memory allows"
            )
        if torch.is_grad_enabled() and not isinstance(instances, Tensor):
            raise ModelError("an array is read in chunks without gradients; use torch.no_grad(), or give a tensor")
        if self.config.ppeg != "none" and not isinstance(instances, Tensor):
            raise ModelError("an array is read in chunks, and PPEG needs all instances at a time; give a tensor")


def input_dim(config: MivpgConfig) -> int:
    """Return the width D of the instances that a configuration's adapter reads."""
    return config.input_dim or config.encoder_hidden_size


def checked_sizes(instances: Bag, bag_sizes: Sequence[int] | Tensor, dim: int) -> list[int]:
    """Return the bag sizes as integers.

    Raises:
        ModelError: no bag, an empty bag, instances of another width, or sizes that do not sum to their number.
    """
    sizes = [int(size) for size in bag_sizes]
    if not sizes:
        raise ModelError("no bag was given; give at least one")
    if min(sizes) < 1:
        raise ModelError(f"bag {sizes.index(min(sizes))} holds no instance; leave slides without tissue out")
    if instances.ndim != 2 or instances.shape[1] != dim:
        raise ModelError(f"instances have shape {tuple(instances.shape)}; this model reads (M, {dim})")
    if sum(sizes) != len(instances):
        raise ModelError(f"bag sizes sum to {sum(sizes)}, but {len(instances)} instances were given")
    return sizes


def _refuse_not_finite(instances: Bag, sizes: list[int]) -> None:
    row = first_not_finite(instances)
    if row is not None:
        place = bisect_right(list(accumulate(sizes)), row)
        raise ModelError(
            f"bag {place}: instance {row - sum(sizes[:place])} holds NaN or infinity; extract its slide again"
        )
