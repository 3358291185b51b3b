"""The adapter behaves as the paper states: pooling that ignores order, and a start that is BLIP-2's Q-Former."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from tests.mivpg.sizes import PLACED, SIZES, VARIANTS, small_model, width
from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, MivpgModel
from wsi_mivpg.mivpg.attention import CorrelatedSelfAttention, Packed


def _updated(csa: CorrelatedSelfAttention, instances: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return csa(Packed(instances, [len(instances)]), queries).instances


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 60),
    seed=st.integers(0, 1000),
    variant=st.sampled_from(VARIANTS),
    absorb_from=st.sampled_from([None, 1]),
)
def test_the_order_of_instances_does_not_matter(count: int, seed: int, variant: dict, absorb_from: int | None) -> None:
    """Propositions 1 (`csa` off) and 2 (on)."""
    model = small_model(**variant, absorb_from=absorb_from, chunk_size=16).double()
    generator = torch.Generator().manual_seed(seed)
    bag = torch.randn(count, width(model), generator=generator, dtype=torch.float64)
    order = torch.randperm(count, generator=generator)
    with torch.no_grad():
        one = model(bag, [count], output_attentions=True)
        two = model(bag[order], [count], output_attentions=True)
    torch.testing.assert_close(one.visual_prompt, two.visual_prompt, atol=1e-12, rtol=0)
    for before, after in zip(one.cross_attentions, two.cross_attentions, strict=True):
        torch.testing.assert_close(before[0][..., order], after[0], atol=1e-12, rtol=0)


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 60), seed=st.integers(0, 1000))
def test_correlated_self_attention_permutes_with_its_input(count: int, seed: int) -> None:
    csa = small_model().double().qformer.encoder.layer[0].crossattention.csa
    generator = torch.Generator().manual_seed(seed)
    instances = torch.randn(count, 24, generator=generator, dtype=torch.float64)
    queries = torch.randn(1, 5, 32, generator=generator, dtype=torch.float64)
    order = torch.randperm(count, generator=generator)
    updated = _updated(csa, instances, queries)
    torch.testing.assert_close(updated[order], _updated(csa, instances[order], queries), atol=1e-12, rtol=0)
    assert not torch.allclose(updated, instances)


@pytest.mark.parametrize("absorb_from", [None, 1])
@pytest.mark.parametrize("variant", [one for one in VARIANTS if one.get("csa", True)], ids=str)
def test_before_training_csa_changes_nothing_bit_for_bit(variant: dict, absorb_from: int | None) -> None:
    with_csa = small_model(stir=False, **variant, absorb_from=absorb_from, chunk_size=16)
    without = small_model(stir=False, **{**variant, "csa": False}, absorb_from=absorb_from, chunk_size=16)
    new = {name for name in with_csa.state_dict() if ".csa." in name}
    shared = {name: tensor for name, tensor in with_csa.state_dict().items() if name not in new}
    without.load_state_dict(shared, strict=True)
    bag = torch.randn(50, width(with_csa))
    with torch.no_grad():
        assert torch.equal(with_csa(bag, [50]).visual_prompt, without(bag, [50]).visual_prompt)
    assert new
    assert all(name.split(".csa.")[1].split(".")[0] in ("norm", "down", "up") for name in new)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("count", [257, 1860])
@pytest.mark.parametrize("absorb_from", [None, 1])
def test_it_equals_hugging_faces_qformer_with_the_same_weights(
    attention: str, count: int, absorb_from: int | None
) -> None:
    torch.manual_seed(1)
    sizes = {name: value for name, value in SIZES.items() if name != "num_query_tokens"}
    theirs = Blip2QFormerModel(Blip2QFormerConfig(**sizes, attn_implementation=attention)).eval()
    ours = small_model(stir=False, input_dim=None, absorb_from=absorb_from, chunk_size=100)
    loaded = ours.qformer.load_state_dict(theirs.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(".csa." in name for name in loaded.missing_keys)
    instances, queries = torch.randn(count, 24), ours.query_tokens
    with torch.no_grad():
        expected = theirs(
            query_embeds=queries, encoder_hidden_states=instances[None], output_attentions=attention == "eager"
        )
        found = ours(instances, [count], output_attentions=True)
    torch.testing.assert_close(found.visual_prompt, expected.last_hidden_state, atol=1e-5, rtol=0)
    if attention == "sdpa":  # transformers returns no weights then, with no more than a warning
        return
    their_weights = [one for one in expected.cross_attentions if one is not None and one.shape[-1] == count]
    assert len(their_weights) == len(found.cross_attentions) == 2
    for their_layer, our_layer in zip(their_weights, found.cross_attentions, strict=True):
        torch.testing.assert_close(our_layer[0], their_layer[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("absorb_from", [None, 1, 17])
def test_packed_bags_give_what_each_bag_gives_alone(absorb_from: int | None) -> None:
    model = small_model(absorb_from=absorb_from, chunk_size=20)
    bags = [torch.randn(count, 40) for count in (60, 1, 17)]
    with torch.no_grad():
        packed = model(torch.cat(bags), [60, 1, 17], output_attentions=True)
        for index, bag in enumerate(bags):
            alone = model(bag, [len(bag)], output_attentions=True)
            torch.testing.assert_close(packed.visual_prompt[index], alone.visual_prompt[0], atol=1e-5, rtol=1e-4)
            for layer, alone_layer in zip(packed.cross_attentions, alone.cross_attentions, strict=True):
                torch.testing.assert_close(layer[index], alone_layer[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("absorb_from", [None, 1, 17])
def test_nan_in_one_bag_does_not_reach_the_others(absorb_from: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(absorb_from=absorb_from, chunk_size=20)
    monkeypatch.setattr("wsi_mivpg.mivpg.model._refuse_not_finite", lambda *_: None)  # which would refuse it
    instances, sizes = torch.randn(78, 40), [60, 1, 17]
    poisoned = instances.clone()
    poisoned[60] = torch.nan
    with torch.no_grad():
        clean, other = model(instances, sizes).visual_prompt, model(poisoned, sizes).visual_prompt
    assert torch.equal(clean[[0, 2]], other[[0, 2]])
    assert other[1].isnan().all()


def test_attention_weights_sum_to_one_over_each_bag() -> None:
    with torch.no_grad():
        weights = small_model()(torch.randn(20, 40), [8, 12], output_attentions=True).cross_attentions
    assert len(weights) == 2
    for layer in weights:
        assert [tuple(one.shape) for one in layer] == [(4, 5, 8), (4, 5, 12)]
        for one in layer:
            torch.testing.assert_close(one.sum(-1), torch.ones(4, 5))


def test_a_changed_instance_reaches_the_others_through_csa() -> None:
    csa = small_model().qformer.encoder.layer[0].crossattention.csa
    instances, queries = torch.randn(10, 24), torch.randn(1, 5, 32)
    changed = instances.clone()
    changed[0] += 3 * torch.randn(24)
    one, two = _updated(csa, instances, queries), _updated(csa, changed, queries)
    assert not torch.allclose(one[1:], two[1:], atol=1e-4)


def test_each_switch_of_csa_makes_another_model() -> None:
    bag = torch.randn(30, 24)
    seen: list[torch.Tensor] = []
    for variant in VARIANTS:
        model = small_model(**{**variant, "input_dim": None})
        with torch.no_grad():
            prompt = model(bag, [30]).visual_prompt
        if variant != {"input_dim": None}:
            assert not any(torch.allclose(prompt, other, atol=1e-3) for other in seen), variant
            seen.append(prompt)


def test_a_tied_way_down_has_no_weights_of_its_own_and_starts_as_the_cross_attention() -> None:
    model = small_model(csa_tie_down=True)
    assert not any(".csa.down." in name for name in model.state_dict())
    block = model.qformer.encoder.layer[0].crossattention
    bags, queries = Packed(torch.randn(10, 24), [10]), torch.randn(1, 5, 32)
    with torch.no_grad():
        summary = block.pool(queries, bags, explicit=False)[0]
        expected = block.pool(queries, block.csa(bags, summary), explicit=False)[0]
        assert torch.equal(block(queries, bags, explicit=False)[0], expected)


def test_empty_and_ill_fitting_bags_are_refused() -> None:
    model = small_model()
    with pytest.raises(ModelError, match="no bag"):
        model(torch.randn(4, 40), [])
    with pytest.raises(ModelError, match="no instance"):
        model(torch.randn(4, 40), [4, 0])
    with pytest.raises(ModelError, match="reads \\(M, 40\\)"):
        model(torch.randn(4, 41), [4])
    with pytest.raises(ModelError, match="sum to 5"):
        model(torch.randn(4, 40), [5])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_features_that_are_no_numbers_are_refused_by_bag_and_row(value: float, dtype: torch.dtype) -> None:
    instances = torch.randn(9, 40).to(dtype)
    instances[6, 3] = value
    for given_instances in (instances, instances.numpy()):
        with torch.no_grad(), pytest.raises(ModelError, match="bag 1: instance 2 holds NaN or infinity"):
            small_model()(given_instances, [4, 5])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"csa_position": "middle"}, "'pre' or 'post'"),
        ({"csa_carry": "never"}, "'cumulative' or 'reset'"),
        ({"csa_layers": [0, 1]}, r"names \[1\]"),
        ({"csa_position": "post", "csa_carry": "reset"}, "nobody reads"),
        ({"csa_position": "post", "csa_layers": [2]}, "in layer 2"),
        ({"csa_position": "post", "num_hidden_layers": 2}, "in layer 0"),
        ({"absorb_from": 0}, "absorb_from is 0"),
        ({"chunk_size": 0}, "chunk_size is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        MivpgConfig(**{**SIZES, **settings_})


@pytest.mark.parametrize(
    "variant", [*VARIANTS, *PLACED, {"absorb_from": None}, {"absorb_from": 4, "chunk_size": 3}], ids=str
)
def test_it_saves_and_loads_as_hugging_face_models_do(variant: dict, tmp_path) -> None:
    model = small_model(**variant)
    bag = torch.randn(9, width(model))
    model.save_pretrained(tmp_path)
    again = MivpgModel.from_pretrained(tmp_path).eval()
    assert {name: getattr(again.config, name) for name in variant} == variant
    with torch.no_grad():
        cells = torch.stack([torch.arange(9), torch.zeros(9, dtype=torch.long)], dim=1)
        one, two = model(bag, [9], coords=cells), again(bag, [9], coords=cells)
    assert torch.equal(one.visual_prompt, two.visual_prompt)
