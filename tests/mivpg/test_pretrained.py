"""A published Q-Former becomes the adapter, tensor by tensor; what does not fit is refused by name."""

import re
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from tests.mivpg.blip2_checkpoints import (
    FAMILIES,
    KEY,
    SIZES,
    WIDTH,
    assert_same_tensors,
    publish,
    tensors_of,
    their_prompt,
    write_lavis,
)
from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, MivpgModel
from wsi_mivpg.mivpg.pretrained import load_blip2

KEY_OR_VALUE = re.compile(r".*crossattention\.attention\.(key|value)\.weight")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return {family: publish(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture
def state(published):
    """The tensors of the BLIP-2 that concern us, by Hugging Face's names."""
    return tensors_of(published["blip-2"][0])


@pytest.fixture
def saved(published, tmp_path):
    """Return a function that writes tensors as a folder's only weights file beside BLIP-2's config.json."""

    def save(tensors):
        save_file(tensors, tmp_path / "model.safetensors")
        shutil.copy(published["blip-2"][1] / "config.json", tmp_path)
        return tmp_path

    return save


@pytest.mark.parametrize("csa", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_it_returns_what_the_checkpoints_own_qformer_returns(published, family, csa):
    theirs, folder = published[family]
    instances = torch.randn(70, WIDTH)
    parts = load_blip2(folder, config=MivpgConfig(**SIZES, csa=csa))
    found = parts.model(instances, [70]).visual_prompt
    torch.testing.assert_close(found, their_prompt(theirs, instances), atol=1e-5, rtol=0)
    assert not parts.model.training
    assert torch.equal(parts.language_projection[0], theirs.language_projection.weight)
    assert torch.equal(parts.language_projection[1], theirs.language_projection.bias)


@torch.no_grad()
def test_correlated_self_attention_leaves_the_checkpoints_output_as_it_is_bit_for_bit(published):
    folder, instances = published["blip-2"][1], torch.randn(70, WIDTH)
    prompts = [
        load_blip2(folder, config=MivpgConfig(**SIZES, csa=csa)).model(instances, [70]).visual_prompt
        for csa in (True, False)
    ]
    assert torch.equal(*prompts)


def test_the_model_alone_comes_from_its_class(published):
    folder, config = published["blip-2"][1], MivpgConfig(**{**SIZES, "encoder_hidden_size": 40}, csa=False)
    torch.manual_seed(1)
    found = MivpgModel.from_blip2(folder, config=config, kv="fresh").state_dict()
    torch.manual_seed(1)
    expected = load_blip2(folder, config=config, kv="fresh").model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_and_dropout_come_from_config_json(published, family):
    found = load_blip2(published[family][1]).model.config
    assert {name: getattr(found, name) for name in SIZES} == SIZES
    assert found.hidden_dropout_prob == 0.25
    assert found.attention_probs_dropout_prob == 0  # not the checkpoint's: long bags cannot be trained with it


@pytest.mark.parametrize(
    ("name", "value"), [("num_attention_heads", 4), ("layer_norm_eps", 1e-12), ("num_query_tokens", 6)]
)
def test_a_config_of_other_sizes_is_refused_even_where_no_shape_shows_it(published, name, value):
    with pytest.raises(ModelError, match=rf"{name} {SIZES[name]}, not {value}"):
        load_blip2(published["blip-2"][1], config=MivpgConfig(**{**SIZES, name: value}))


def test_a_bare_file_shows_its_sizes(state, tmp_path):
    found = load_blip2(write_lavis(state, tmp_path)).model.config
    expected = {**SIZES, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1}  # BERT's
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_bare_files_heads_come_from_the_config_where_one_is_given(state, tmp_path):
    path = write_lavis(state, tmp_path)
    found = load_blip2(path, config=MivpgConfig(**{**SIZES, "num_attention_heads": 8})).model
    assert found.qformer.encoder.layer[0].attention.attention.num_heads == 8


def test_a_bare_file_whose_heads_are_not_known_asks_for_a_config(tmp_path):
    config = MivpgConfig(**{**SIZES, "hidden_size": 48}, csa=False)
    path = write_lavis(MivpgModel(config).state_dict(), tmp_path)
    with pytest.raises(ModelError, match=r"blip2\.pth.*48.*give config="):
        load_blip2(path)
    assert load_blip2(path, config=config).language_projection is None


@pytest.mark.parametrize("damaged", ["query_tokens", "qformer.encoder.layer.0.intermediate_query.dense.weight"])
def test_a_bare_file_that_cannot_show_its_sizes_is_refused(state, damaged, tmp_path):
    del state[damaged]
    with pytest.raises(ModelError, match=f"missing \\({damaged}"):
        load_blip2(write_lavis(state, tmp_path))
    state[damaged] = torch.ones(3)
    with pytest.raises(ModelError, match=f"{damaged}: not the shape"):
        load_blip2(write_lavis(state, tmp_path))


@torch.no_grad()
def test_an_input_projection_stands_before_the_checkpoints_own_width(published, state):
    parts = load_blip2(published["blip-2"][1], config=MivpgConfig(**SIZES, input_dim=40))
    assert_same_tensors(parts, state)
    new = parts.model.state_dict().keys() - state.keys()
    assert {name.split(".")[0] if "layer." not in name else name.split(".")[5] for name in new} == {
        "input_projection",
        "csa",
    }
    assert parts.model(torch.randn(9, 40), [9]).visual_prompt.isfinite().all()


def test_another_encoders_width_is_refused_with_both_ways_out(published):
    with pytest.raises(ModelError, match=rf'width {WIDTH}.*is 40.*input_dim=40.*kv="fresh"'):
        load_blip2(published["blip-2"][1], config=MivpgConfig(**{**SIZES, "encoder_hidden_size": 40}))


@torch.no_grad()
def test_fresh_keys_and_values_are_all_that_another_width_loses(published, state):
    config = MivpgConfig(**{**SIZES, "encoder_hidden_size": 40}, csa=False)
    model = load_blip2(published["blip-2"][1], config=config, kv="fresh").model
    fresh = {
        name
        for name, tensor in model.state_dict().items()
        if tensor.shape != state[name].shape or not torch.equal(tensor, state[name])
    }
    assert fresh == {name for name in state if KEY_OR_VALUE.fullmatch(name)}
    assert len(fresh) == 4
    for name in fresh:
        weight = model.state_dict()[name]
        assert weight.shape == (128, 40)
        assert weight.std() == pytest.approx(config.initializer_range, rel=0.1)
    assert model(torch.randn(9, 40), [9]).visual_prompt.isfinite().all()


def test_fresh_keys_and_values_of_the_same_width_are_fresh_too(published, state):
    model = load_blip2(published["blip-2"][1], kv="fresh").model
    for name, tensor in model.state_dict().items():
        if name in state:
            assert torch.equal(tensor, state[name]) == (KEY_OR_VALUE.fullmatch(name) is None), name


def test_a_misspelt_kv_is_refused(published):
    with pytest.raises(ModelError, match="kv is 'new'"):
        load_blip2(published["blip-2"][1], kv="new")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ({KEY: None}, rf"1 missing \({re.escape(KEY)}\)"),
        ({"query_tokens": None}, r"1 missing \(query_tokens\)"),
        ({"language_projection.bias": None}, r"1 missing \(language_projection\.bias\)"),
        ({"qformer.pooler.weight": torch.ones(2)}, r"1 unexpected \(qformer\.pooler\.weight\)"),
        ({"language_projection.scale": torch.ones(2)}, r"1 unexpected \(language_projection\.scale\)"),
        ({"qformer.encoder.layer.0.crossattention.csa.norm.bias": torch.ones(WIDTH)}, "1 unexpected"),
        ({"qformer.encoder.layer.4.output_query.dense.bias": torch.ones(128)}, "1 unexpected"),
        ({KEY: torch.ones(128, 64)}, rf"{re.escape(KEY)} \(128, 64\), not \(128, 128\)"),
        ({"language_projection.weight": torch.ones(48, 64)}, r"language_projection has weight \(48, 64\)"),
        ({KEY: torch.ones(128, 128, dtype=torch.int8)}, "quantised"),
    ],
)
def test_a_missing_or_extra_or_misshapen_tensor_is_named(state, saved, damage, complaint):
    state = {name: tensor for name, tensor in {**state, **damage}.items() if tensor is not None}
    with pytest.raises(ModelError, match=f"model.safetensors: .*{complaint}"):
        load_blip2(saved(state))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("{", r"cannot read .*config\.json"),
        ('{"qformer_config": {"hidden_act": "relu"}}', "hidden_act is 'relu'"),
        ('{"qformer_config": {"hidden_size": "128"}}', "hidden_size '128': not a number"),
    ],
)
def test_a_config_json_that_cannot_be_followed_is_refused(state, saved, config, complaint):
    folder = saved(state)
    (folder / "config.json").write_text(config)
    with pytest.raises(ModelError, match=complaint):
        load_blip2(folder)


def test_another_models_config_json_beside_a_file_is_passed_over(state, saved):
    folder = saved(state)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert_same_tensors(load_blip2(folder), state)


def test_at_full_size_it_is_blip2s_qformer_and_only_named_parts_are_new():
    with torch.device("meta"):
        theirs = Blip2QFormerModel(Blip2QFormerConfig()).state_dict()
        ours = MivpgModel(MivpgConfig(input_dim=1536)).state_dict()
    expected = {f"qformer.{name}": tensor.shape for name, tensor in theirs.items()} | {"query_tokens": (1, 32, 768)}
    assert len(theirs) == 254
    assert sum(tensor.numel() for tensor in theirs.values()) == 105_137_664
    assert {name: ours[name].shape for name in expected} == expected
    new = ours.keys() - expected.keys()
    assert all(re.match(r"input_projection\.|.*\.crossattention\.(csa|ppeg)\.", name) for name in new)
