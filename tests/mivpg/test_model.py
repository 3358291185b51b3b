"""The adapter behaves as the paper states: pooling that ignores order, and a start that is BLIP-2's Q-Former."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, MivpgModel

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "encoder_hidden_size": 24,
    "num_query_tokens": 5,
}


def _model(*, stir: bool = True, **changes: object) -> MivpgModel:
    """A small model in evaluation mode; stirred, its zero-initialised parts have effect."""
    torch.manual_seed(0)
    model = MivpgModel(MivpgConfig(**{**SIZES, "input_dim": 40, **changes})).eval()
    if stir:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 60), seed=st.integers(0, 1000), carry=st.sampled_from(["cumulative", "reset"]))
def test_the_order_of_instances_does_not_matter(count: int, seed: int, carry: str) -> None:
    model = _model(csa_carry=carry)
    generator = torch.Generator().manual_seed(seed)
    bag = torch.randn(count, 40, generator=generator)
    order = torch.randperm(count, generator=generator)
    with torch.no_grad():
        one, two = model(bag, [count]), model(bag[order], [count])
    torch.testing.assert_close(one.visual_prompt, two.visual_prompt, atol=2e-5, rtol=1e-4)


def test_correlated_self_attention_permutes_with_its_input() -> None:
    csa = _model().qformer.encoder.layer[0].crossattention.csa
    instances, queries, order = torch.randn(30, 24), torch.randn(1, 5, 32), torch.randperm(30)
    with torch.no_grad():
        updated = csa(instances, queries, [30])
        permuted = csa(instances[order], queries, [30])
    torch.testing.assert_close(updated[order], permuted, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(updated, instances)


def test_before_training_csa_changes_nothing_bit_for_bit() -> None:
    with_csa, without = _model(stir=False), _model(stir=False, csa=False)
    new = {name for name in with_csa.state_dict() if ".csa." in name}
    shared = {name: tensor for name, tensor in with_csa.state_dict().items() if name not in new}
    without.load_state_dict(shared, strict=True)
    bag = torch.randn(50, 40)
    with torch.no_grad():
        assert torch.equal(with_csa(bag, [50]).visual_prompt, without(bag, [50]).visual_prompt)
    assert new
    assert all(name.split(".csa.")[1].split(".")[0] in ("norm", "down", "up") for name in new)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("count", [257, 1860])
def test_it_equals_hugging_faces_qformer_with_the_same_weights(attention: str, count: int) -> None:
    torch.manual_seed(1)
    sizes = {name: value for name, value in SIZES.items() if name != "num_query_tokens"}
    theirs = Blip2QFormerModel(Blip2QFormerConfig(**sizes, attn_implementation=attention)).eval()
    ours = _model(stir=False, input_dim=None)
    loaded = ours.qformer.load_state_dict(theirs.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(".csa." in name for name in loaded.missing_keys)
    instances, queries = torch.randn(count, 24), ours.query_tokens
    with torch.no_grad():
        expected = theirs(query_embeds=queries, encoder_hidden_states=instances[None]).last_hidden_state
        found = ours(instances, [count]).visual_prompt
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_packed_bags_give_what_each_bag_gives_alone() -> None:
    model, bags = _model(), [torch.randn(count, 40) for count in (1, 17, 60)]
    with torch.no_grad():
        packed = model(torch.cat(bags), [1, 17, 60], output_attentions=True)
        for index, bag in enumerate(bags):
            alone = model(bag, [len(bag)])
            torch.testing.assert_close(packed.visual_prompt[index], alone.visual_prompt[0], atol=1e-5, rtol=1e-4)


def test_attention_weights_sum_to_one_over_each_bag() -> None:
    with torch.no_grad():
        weights = _model()(torch.randn(20, 40), [8, 12], output_attentions=True).cross_attentions
    assert len(weights) == 2
    for layer in weights:
        assert [tuple(one.shape) for one in layer] == [(4, 5, 8), (4, 5, 12)]
        for one in layer:
            torch.testing.assert_close(one.sum(-1), torch.ones(4, 5))


def test_a_changed_instance_reaches_the_others_through_csa() -> None:
    csa = _model().qformer.encoder.layer[0].crossattention.csa
    instances, queries = torch.randn(10, 24), torch.randn(1, 5, 32)
    changed = instances.clone()
    changed[0] += 3 * torch.randn(24)
    with torch.no_grad():
        one, two = csa(instances, queries, [10]), csa(changed, queries, [10])
    assert not torch.allclose(one[1:], two[1:], atol=1e-4)


def test_empty_and_ill_fitting_bags_are_refused() -> None:
    model = _model()
    with pytest.raises(ModelError, match="no instance"):
        model(torch.randn(4, 40), [4, 0])
    with pytest.raises(ModelError, match="reads \\(M, 40\\)"):
        model(torch.randn(4, 41), [4])
    with pytest.raises(ModelError, match="sum to 5"):
        model(torch.randn(4, 40), [5])


def test_it_saves_and_loads_as_hugging_face_models_do(tmp_path) -> None:
    model, bag = _model(), torch.randn(9, 40)
    model.save_pretrained(tmp_path)
    again = MivpgModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(model(bag, [9]).visual_prompt, again(bag, [9]).visual_prompt)
