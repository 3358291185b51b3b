"""The captioner trains only what it should, writes the same text in any batch, and comes back from disk as it was."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.provenance import bag_on_disk
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaptionerConfig, SlideCaptioner
from wsi_mivpg.captioner.model import IGNORED, pad_labels
from wsi_mivpg.errors import BagError, ModelError

REPORTS = ["benign", "adenocarcinoma in 20%", "squamous, 5%", "necrosis"]


def _bags() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(count, 12, generator=generator) for count in (3, 9, 5, 7)]


def _overfitted(config: CaptionerConfig) -> SlideCaptioner:
    torch.manual_seed(0)
    captioner = SlideCaptioner.create(config).train()
    bags = _bags()
    packed, sizes = torch.cat(bags), [len(bag) for bag in bags]
    optimiser = torch.optim.AdamW([p for p in captioner.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(400):
        optimiser.zero_grad()
        loss = captioner(packed, sizes, reports=REPORTS).loss
        loss.backward()
        optimiser.step()
        if loss < 0.02:
            break
    captioner.eval()
    return captioner


def test_four_bags_are_learned_by_heart_batched_and_one_by_one(tiny_config: CaptionerConfig) -> None:
    captioner, bags = _overfitted(tiny_config), _bags()
    together = captioner.generate(bags)
    assert [one.text for one in together] == REPORTS
    for bag, one in zip(bags, together, strict=True):
        alone = captioner.generate([bag])[0]
        assert alone.text == one.text
        assert alone.mean_logprob == pytest.approx(one.mean_logprob, abs=1e-3)
        assert one.attention.shape == (len(bag),)
        assert float(one.attention.sum()) == pytest.approx(1, abs=1e-5)
        assert not one.hit_length_limit
        assert -0.5 < one.mean_logprob < 0


def test_a_cut_report_says_so(tiny_config: CaptionerConfig) -> None:
    cut = _overfitted(tiny_config).generate(_bags()[:1], max_new_tokens=3)[0]
    assert cut.text == "ben"
    assert cut.hit_length_limit


def test_the_loss_is_that_of_the_report_tokens_alone(tiny_config: CaptionerConfig) -> None:
    captioner = SlideCaptioner.create(tiny_config).eval()
    bags, ids = _bags()[:2], [captioner.encode_report(text) for text in REPORTS[:2]]
    packed, sizes = torch.cat(bags), [3, 9]
    loss = captioner(packed, sizes, labels=pad_labels(ids)).loss
    prefix, _ = captioner._prefix(packed, sizes, output_attentions=False)
    total = torch.zeros(())
    for row, report in zip(prefix, ids, strict=True):
        sequence = torch.cat([row[None], captioner._embed(torch.tensor([report]))], dim=1)
        logits = captioner.language_model(inputs_embeds=sequence).logits[0, len(row) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(report), reduction="sum")
    torch.testing.assert_close(loss, total / sum(map(len, ids)), atol=1e-5, rtol=1e-5)


def test_what_stands_after_a_report_has_no_influence(tiny_config: CaptionerConfig) -> None:
    captioner = SlideCaptioner.create(tiny_config).eval()
    labels = pad_labels([captioner.encode_report("benign")])
    longer = torch.cat([labels, torch.full((1, 5), IGNORED)], dim=1)
    bag = _bags()[0]
    torch.testing.assert_close(captioner(bag, [3], labels=labels).loss, captioner(bag, [3], labels=longer).loss)


def test_the_frozen_base_gets_no_gradient_and_stays_in_evaluation_mode(tiny_config: CaptionerConfig) -> None:
    captioner = SlideCaptioner.create(tiny_config).train()
    captioner(torch.cat(_bags()), [3, 9, 5, 7], reports=REPORTS).loss.backward()
    for name, parameter in captioner.named_parameters():
        is_base = name.startswith("language_model.") and "lora_" not in name
        assert (parameter.grad is None) == is_base, name
    assert captioner.mivpg.training
    assert not captioner.language_model.training


def test_prompt_tokens_start_as_long_as_the_token_embeddings(tiny_config: CaptionerConfig) -> None:
    captioner = SlideCaptioner.create(tiny_config).eval()
    visual = captioner._prefix(_bags()[1], [9], output_attentions=False)[0][0, :4]
    tokens = captioner.language_model.get_input_embeddings().weight
    assert float(visual.detach().norm(dim=1).mean()) == pytest.approx(
        float(tokens.detach().norm(dim=1).mean()), rel=0.5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_saved_model_comes_back_as_it_was(tiny_config: CaptionerConfig, tmp_path: Path, dtype: torch.dtype) -> None:
    captioner = SlideCaptioner.create(tiny_config).eval()
    captioner.save_pretrained(tmp_path, dtype=dtype)
    again = SlideCaptioner.from_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert not any(".base_layer." in name for name in safetensors.torch.load_file(tmp_path / "model.safetensors"))
    for name, tensor in captioner.trained_state().items():
        assert torch.equal(again.trained_state()[name], tensor.to(dtype).float()), name
    if dtype == torch.float32:
        assert captioner.generate(_bags())[1].text == again.generate(_bags())[1].text


def test_missing_and_unexpected_tensors_are_named(tiny_config: CaptionerConfig, tmp_path: Path) -> None:
    SlideCaptioner.create(tiny_config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["stranger"] = tensors.pop("language_projection.bias")
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(ModelError, match=r"missing \['language_projection.bias'\].*unexpected \['stranger'\]"):
        SlideCaptioner.from_pretrained(tmp_path)


def test_damaged_and_foreign_folders_are_refused(tiny_config: CaptionerConfig, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        SlideCaptioner.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="not the configuration of a report model"):
        SlideCaptioner.from_pretrained(tmp_path)
    SlideCaptioner.create(tiny_config).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot read"):
        SlideCaptioner.from_pretrained(tmp_path)


def test_another_base_model_is_refused(tiny_config: CaptionerConfig, tmp_path: Path) -> None:
    SlideCaptioner.create(tiny_config).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["language_model_sha256"] = "0" * 64
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="give the same base model"):
        SlideCaptioner.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("encoder", "other"), ("feature_dim", 13), ("target_mpp", 0.25), ("tile_px", 256)]
)
def test_a_bag_made_otherwise_is_refused_with_both_values(
    tiny_config: CaptionerConfig, tmp_path: Path, name: str, value: object
) -> None:
    captioner = SlideCaptioner.create(tiny_config)
    bag = bag_on_disk(tmp_path / "s1.h5")
    captioner.check_bag(bag)
    with pytest.raises(ModelError, match=f"{name} {value!r}.*{getattr(tiny_config, name)!r}"):
        captioner.check_bag(replace(bag, **{name: value}))


def test_a_bag_that_does_not_state_what_the_model_asks_is_refused_with_a_way_out(
    tiny_config: CaptionerConfig, tmp_path: Path
) -> None:
    captioner = SlideCaptioner.create(tiny_config)
    np.save(tmp_path / "bare.npy", np.zeros((3, 12), np.float32))
    with pytest.raises(BagError, match=r"does not state its encoder, .*target_mpp, tile_px.*bags convert"):
        captioner.check_bag(FeatureBag.open(tmp_path / "bare.npy"))


def test_unknown_language_models_and_lora_layers_are_refused(tiny_config: CaptionerConfig) -> None:
    tiny_config.lora = {**(tiny_config.lora or {}), "target_modules": ["no_such_layer"]}
    with pytest.raises(ModelError, match="lora"):
        SlideCaptioner.create(tiny_config)
    with pytest.raises(ModelError, match="cannot load the language model 'nowhere'"):
        SlideCaptioner.create(CaptionerConfig(language_model="nowhere"))
