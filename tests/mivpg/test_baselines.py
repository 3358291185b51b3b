"""Each baseline is what its paper writes, and stands behind the same interface as MIVPG."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, MivpgOutput
from wsi_mivpg.mivpg import baselines as module
from wsi_mivpg.mivpg.attention import Packed
from wsi_mivpg.mivpg.baselines import ADAPTERS, FullSelfAttention, GatedAttentionPooling, PerceiverResampler

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "encoder_hidden_size": 24,
    "num_query_tokens": 5,
    "input_dim": 40,
}


def _stirred(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, its zero-initialised parts with effect."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def _adapter(name: str) -> nn.Module:
    torch.manual_seed(0)
    return _stirred(ADAPTERS[name](MivpgConfig(**SIZES)))


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_turns_ragged_bags_into_prompts_as_if_each_were_alone(name: str) -> None:
    adapter, bags = _adapter(name), [torch.randn(count, 40) for count in (1, 17, 60)]
    with torch.no_grad():
        packed = adapter(torch.cat(bags), [1, 17, 60], output_attentions=True)
        assert isinstance(packed, MivpgOutput)
        assert packed.visual_prompt.shape == (3, 5, 32)
        for index, bag in enumerate(bags):
            alone = adapter(bag, [len(bag)])
            assert alone.cross_attentions is None
            torch.testing.assert_close(packed.visual_prompt[index], alone.visual_prompt[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_ignores_the_order_of_instances(name: str) -> None:
    adapter, bag, order = _adapter(name), torch.randn(30, 40), torch.randperm(30)
    with torch.no_grad():
        one, two = adapter(bag, [30]).visual_prompt, adapter(bag[order], [30]).visual_prompt
    torch.testing.assert_close(one, two, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_says_how_much_it_read_each_instance(name: str) -> None:
    with torch.no_grad():
        layers = _adapter(name)(torch.randn(20, 40), [8, 12], output_attentions=True).cross_attentions
    assert layers
    for layer in layers:
        assert [(one.shape[1], one.shape[2]) for one in layer] == [(5, 8), (5, 12)]
        for one in layer:
            torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:2]))


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_trained_parameter_of_every_adapter_gets_a_gradient(name: str) -> None:
    adapter = _adapter(name)
    adapter(torch.randn(20, 40), [8, 12]).visual_prompt.square().sum().backward()
    without = [n for n, parameter in adapter.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("name", ADAPTERS)
def test_empty_and_ill_fitting_bags_are_refused(name: str) -> None:
    adapter = _adapter(name)
    for instances, sizes, message in (
        (torch.randn(4, 40), [4, 0], "no instance"),
        (torch.randn(4, 41), [4], r"\(M, 40\)"),
        (torch.randn(4, 40), [5], "sum to 5"),
        (torch.randn(4, 40), [], "no bag"),
    ):
        with pytest.raises(ModelError, match=message):
            adapter(instances, sizes)


def test_abmil_equals_its_formula() -> None:
    """Ilse 2018, gated: a_k = softmax_k(w^T (tanh(V h_k) * sigm(U h_k))), z = sum_k a_k h_k; one instance at a time."""
    pooling, bag = _stirred(GatedAttentionPooling(6)).double(), torch.randn(9, 6).double()
    with torch.no_grad():
        pooled, (weights,) = pooling(bag, [9])
        v, u, w = pooling.tanh, pooling.gate, pooling.score
        logits = [
            w.weight[0] @ (torch.tanh(v.weight @ h + v.bias) / (1 + torch.exp(-(u.weight @ h + u.bias)))) + w.bias[0]
            for h in bag
        ]
        exponentials = torch.stack(logits).exp()
        a = exponentials / exponentials.sum()
        torch.testing.assert_close(weights.double(), a, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(pooled[0], sum(a[k] * bag[k] for k in range(9)), atol=1e-6, rtol=1e-6)
    assert a.std() > 0.01  # the weights differ, so that the mean would fail


def test_mean_pooling_weighs_all_instances_alike() -> None:
    adapter, bag = _adapter("mean_mlp"), torch.randn(10, 40)
    with torch.no_grad():
        expected = adapter.tokens(torch.stack([adapter.embedding(one[None])[0] for one in bag]).mean(0)[None])
        torch.testing.assert_close(adapter(bag, [10]).visual_prompt, expected)


def _multi_head(query: Tensor, context: Tensor, attention: nn.MultiheadAttention) -> Tensor:
    """Scaled dot-product attention in so many words, one head after another."""
    w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
    heads = [(x @ w.T).chunk(4, -1) for x, w in ((query, w_q), (context, w_k), (context, w_v))]
    read = []
    for q, k, v in zip(*heads, strict=True):
        read.append((q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v)
    return torch.cat(read, -1) @ attention.out_proj.weight.T


@pytest.mark.parametrize("explicit", [False, True])
def test_the_perceiver_resampler_equals_its_formula(explicit: bool) -> None:
    """Flamingo: latents += attention(latents; instances and latents); latents += feed-forward; pre-norm throughout."""
    perceiver, bag = _adapter("perceiver").double(), torch.randn(13, 40).double()
    assert isinstance(perceiver, PerceiverResampler)
    assert len(perceiver.layers) == 2  # as many as MIVPG has cross-attentions
    with torch.no_grad():
        found = perceiver(bag, [13], output_attentions=explicit).visual_prompt[0]
        instances, latents = perceiver.input_projection(bag), perceiver.latents
        for layer in perceiver.layers:
            query = layer.norm_latents(latents)
            context = torch.cat([layer.norm_instances(instances), query])
            latents = latents + _multi_head(query, context, layer.attention)
            up, down = layer.feed_forward[1].weight, layer.feed_forward[3].weight
            latents = latents + F.gelu(layer.feed_forward[0](latents) @ up.T) @ down.T
        torch.testing.assert_close(found, perceiver.norm(latents), atol=1e-11, rtol=1e-11)


def test_full_self_attention_equals_torchs() -> None:
    """Against nn.MultiheadAttention with the same matrices."""
    config = MivpgConfig(**{**SIZES, "encoder_hidden_size": 32})
    ours = _stirred(FullSelfAttention(config)).double()
    theirs = nn.MultiheadAttention(32, 4, batch_first=True).double().eval()
    three = (ours.attention.query, ours.attention.key, ours.attention.value)
    bags = [torch.randn(count, 32).double() for count in (1, 11)]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([one.weight for one in three]))
        theirs.in_proj_bias.copy_(torch.cat([one.bias for one in three]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
        found = ours(Packed(torch.cat(bags), [1, 11]), torch.zeros(2, 5, 32).double()).instances
        expected = []
        for bag in bags:
            normalised = ours.norm(bag)[None]
            expected.append(bag + theirs(normalised, normalised, normalised, need_weights=False)[0][0])
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-11, rtol=1e-11)


def test_before_training_full_self_attention_is_the_plain_qformer() -> None:
    config = MivpgConfig(**SIZES)
    full, plain = ADAPTERS["full_self_attention"](config).eval(), ADAPTERS["qformer"](config).eval()
    missing = full.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(".csa." in name for name in missing)
    bag = torch.randn(20, 40)
    with torch.no_grad():
        assert torch.equal(full(bag, [20]).visual_prompt, plain(bag, [20]).visual_prompt)


def test_full_self_attention_stands_where_csa_would() -> None:
    config = MivpgConfig(**SIZES, csa_layers=[2])
    full, ours = ADAPTERS["full_self_attention"](config), ADAPTERS["mivpg"](config)
    assert _layers_with_csa(full) == _layers_with_csa(ours) == {2}
    after = MivpgConfig(**SIZES, csa_position="post")
    assert _layers_with_csa(ADAPTERS["full_self_attention"](after)) == {0}


def _layers_with_csa(adapter: torch.nn.Module) -> set[int]:
    return {int(name.split(".")[3]) for name in adapter.state_dict() if ".csa." in name}


def test_the_plain_qformer_has_no_correlation_and_leaves_the_callers_configuration_alone() -> None:
    config = MivpgConfig(**SIZES)
    assert not [name for name in ADAPTERS["qformer"](config).state_dict() if ".csa." in name]
    assert config.csa


def test_full_self_attention_refuses_bags_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FULL_ATTENTION", 10)
    adapter = _adapter("full_self_attention")
    with torch.no_grad():
        adapter(torch.randn(20, 40), [10, 10])
    with pytest.raises(ModelError, match=r"bag 1 has 11 instances.* at most 10"):
        adapter(torch.randn(21, 40), [10, 11])
