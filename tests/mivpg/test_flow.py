"""What is followed in rank R is what a matrix of all pairs would tell; and it is the same for every way of reading."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.mivpg.sizes import PLACED, SIZES, VARIANTS, small_model, width
from wsi_mivpg.mivpg import ADAPTERS, HierarchicalMivpg, MivpgConfig, MivpgModel
from wsi_mivpg.mivpg.attention import MultiHeadAttention, Packed
from wsi_mivpg.mivpg.rollout import rollout

COUNT = 30


def _cells(count: int) -> Tensor:
    place = torch.arange(count)
    return torch.stack([place % 6, place // 6], dim=1)


def _attention(module: MultiHeadAttention, query: Tensor, context: Tensor) -> Tensor:
    """Weights (T, S), the mean over heads."""
    scores = module.heads(module.query(query)) @ module.heads(module.key(context)).transpose(1, 2)
    return (scores / (module.query.out_features / module.num_heads) ** 0.5).softmax(-1).mean(0)


def _share(read: Tensor, kept: Tensor) -> Tensor:
    return (read.norm(dim=1) / (read.norm(dim=1) + kept.norm(dim=1)))[:, None]


@torch.no_grad()
def _dense(model: MivpgModel, bag: Tensor) -> Tensor:
    """The same rollout with everything written out: instances are rows of an M x M matrix. For CSA before reading."""
    start = bag if model.input_projection is None else model.input_projection(bag)
    instances, on_instances = start, torch.eye(len(bag), dtype=bag.dtype)
    queries = model.qformer.layernorm(model.query_tokens[0])
    on_queries = torch.zeros(len(queries), len(bag), dtype=bag.dtype)
    for layer in cast(Any, model.qformer.encoder.layer):
        own = layer.attention
        read = own.attention(queries[None])[0]
        share = _share(own.output.dense(read[0]), queries)
        weights = _attention(own.attention, queries, queries)
        on_queries = (1 - share) * on_queries + share * weights @ on_queries
        queries = own.output(read, queries[None])[0]
        cross = layer.crossattention
        if cross is not None:
            if not model.qformer.carries_instances:
                instances, on_instances = start, torch.eye(len(bag), dtype=bag.dtype)

            if cross.csa is not None:
                csa, normed = cross.csa, cross.csa.norm(instances)
                if csa.down is None:
                    summary, on_summary = _pooled(cross, queries, on_queries, instances, on_instances)
                else:
                    added = csa.down.output(csa.down.read(queries[None], Packed(normed, [len(normed)]))[0][0])
                    share, summary = _share(added, queries), queries + added
                    on_summary = (1 - share) * on_queries + share * _attention(csa.down, queries, normed) @ on_instances
                mixed = csa(Packed(instances, [len(instances)]), (queries if csa.down else summary)[None]).instances
                share = _share(mixed - instances, instances)
                weights = _attention(csa.up, normed, summary)
                on_instances = (1 - share) * on_instances + share * weights @ on_summary
                instances = mixed
            queries, on_queries = _pooled(cross, queries, on_queries, instances, on_instances)
        queries = layer.output_query(layer.intermediate_query(queries), queries)
    return on_queries


def _pooled(
    cross: Any, queries: Tensor, on_queries: Tensor, instances: Tensor, on_instances: Tensor
) -> tuple[Tensor, Tensor]:
    """Read instances by cross-attention: the new queries, and what they rest on."""
    read = cross.attention.read(queries[None], Packed(instances, [len(instances)]))[0]
    share = _share(cross.output.dense(read[0]), queries)
    rests = (1 - share) * on_queries + share * _attention(cross.attention, queries, instances) @ on_instances
    return cross.output(read, queries[None])[0], rests


BEFORE_READING = [variant for variant in VARIANTS if variant.get("csa_position") != "post"]


@pytest.mark.parametrize("variant", BEFORE_READING, ids=str)
@pytest.mark.parametrize("absorb_from", [None, 1])
def test_in_rank_r_it_is_what_the_dense_matrices_say(variant: dict[str, Any], absorb_from: int | None) -> None:
    model = small_model(**variant, absorb_from=absorb_from, chunk_size=7).double()
    bag = torch.randn(COUNT, width(model), dtype=torch.float64)
    prompt, weights = rollout(model, bag, [COUNT])
    torch.testing.assert_close(weights, _dense(model, bag).to(weights.dtype), atol=1e-6, rtol=0)
    torch.testing.assert_close(prompt, model(bag, [COUNT]).visual_prompt[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("variant", [*VARIANTS, *PLACED], ids=str)
def test_it_is_the_same_in_chunks_and_sums_to_at_most_one(variant: dict[str, Any]) -> None:
    at_once, chunked = (small_model(**variant, absorb_from=limit, chunk_size=7).double() for limit in (None, 1))
    bag = torch.randn(COUNT, width(at_once), dtype=torch.float64)
    expected, found = (rollout(model, bag, [COUNT], _cells(COUNT))[1] for model in (at_once, chunked))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (found >= 0).all()
    assert (found.sum(dim=1) <= 1 + 1e-6).all()


def test_before_training_csa_has_no_part_in_it() -> None:
    with_csa, without = small_model(stir=False), small_model(stir=False, csa=False)
    without.load_state_dict(with_csa.state_dict(), strict=False)
    bag = torch.randn(COUNT, 40)
    torch.testing.assert_close(rollout(with_csa, bag, [COUNT])[1], rollout(without, bag, [COUNT])[1])


def test_full_self_attention_is_followed_pair_by_pair() -> None:
    torch.manual_seed(0)
    model = ADAPTERS["full_self_attention"](MivpgConfig(**{**SIZES, "input_dim": 40, "num_hidden_layers": 1})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        bag = torch.randn(COUNT, 40)
        found = rollout(model, bag, [COUNT])[1]
        cross = cast(Any, model).qformer.encoder.layer[0].crossattention
        instances = cast(Any, model).input_projection(bag)
        normed = cross.csa.norm(instances)
        mixed = cross.csa(Packed(instances, [COUNT]), None).instances
        share = _share(mixed - instances, instances)
        pairs = (1 - share) * torch.eye(COUNT) + share * _attention(cross.csa.attention, normed, normed)
        read = model(bag, [COUNT], output_attentions=True).cross_attentions[0][0].mean(0) @ pairs
    expected = read / read.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found / found.sum(dim=1, keepdim=True), expected, atol=1e-5, rtol=1e-4)


def test_the_hierarchical_adapter_spreads_a_slides_weight_over_its_tiles() -> None:
    torch.manual_seed(0)
    model = HierarchicalMivpg(MivpgConfig(**{**SIZES, "input_dim": 40})).eval()
    bag = torch.randn(COUNT, 40)
    prompt, weights = rollout(model, bag, [[10, 20]])
    with torch.no_grad():
        images, within = model.pooling(bag, [10, 20])
        of_slides = rollout(model.mivpg, images, [2])[1]
    for slide, rows in enumerate((slice(0, 10), slice(10, 30))):
        torch.testing.assert_close(weights[:, rows].sum(dim=1), of_slides[:, slide])
        torch.testing.assert_close(weights[0, rows] / weights[0, rows].sum(), within[slide])
    torch.testing.assert_close(prompt, model(bag, [[10, 20]]).visual_prompt[0])
