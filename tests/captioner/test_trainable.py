"""What trains is one field; what does not, stays as it was, in evaluation mode and without gradients."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tests.tiny_captioner import REPORTS, tiny_config
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, pack
from wsi_mivpg.captioner.saving import export_language_model
from wsi_mivpg.captioner.sequences import pad_labels
from wsi_mivpg.captioner.trainable import hold_frozen_in
from wsi_mivpg.errors import ModelError

Bases = Callable[[str], Path]
BOTH = pytest.mark.parametrize("family", ["llama", "opt", "flan-t5"])


def _captioner(base: Path, **changes: Any) -> SlideCaptioner:
    torch.manual_seed(0)
    return SlideCaptioner.create(tiny_config(base, prompt_template=None, **changes))


def _loss(captioner: SlideCaptioner, cases: list[CaseBags]) -> torch.Tensor:
    return captioner(**pack(cases), labels=pad_labels([captioner.encode_report(text) for text in REPORTS])).loss


def _step(captioner: SlideCaptioner, cases: list[CaseBags], rate: float = 1e-2) -> None:
    optimiser = torch.optim.SGD([p for p in captioner.parameters() if p.requires_grad], lr=rate)
    _loss(captioner, cases).backward()
    optimiser.step()
    optimiser.zero_grad()


@BOTH
@pytest.mark.parametrize("trains", ["adapter", "lora", "full"])
def test_what_is_named_changes_and_nothing_else(
    tiny_base_of: Bases, cases: list[CaseBags], family: str, trains: str
) -> None:
    captioner = _captioner(tiny_base_of(family), trains=trains).train()
    before = copy.deepcopy(captioner.state_dict())
    _step(captioner, cases)
    _step(captioner, cases)  # LoRA's first matrix gets a gradient once its second is no longer zero
    unused = captioner.language_model.get_input_embeddings().weight.grad
    assert unused is None
    for name, tensor in captioner.state_dict().items():
        may_change = not name.startswith("language_model.") or trains == "full" or ".lora_" in name
        assert torch.equal(tensor, before[name]) != may_change or (may_change and tensor.numel() == 0), name


@BOTH
def test_modes_follow_what_trains(tiny_base_of: Bases, family: str) -> None:
    for trains, parts in (("adapter", 0), ("lora", "dropout"), ("full", "all")):
        captioner = _captioner(tiny_base_of(family), trains=trains, lora={"r": 2, "dropout": 0.5}).train()
        training = [name for name, module in captioner.language_model.named_modules() if module.training]
        assert captioner.mivpg.training
        if parts == "all":
            assert len(training) == len(list(captioner.language_model.modules()))
        elif parts == "dropout":
            assert training
            assert all("lora_dropout" in name for name in training)
        else:
            assert not training
        assert not any(module.training for module in captioner.eval().modules())


@BOTH
def test_lora_reaches_all_linear_layers_but_the_head_or_those_that_are_named(tiny_base_of: Bases, family: str) -> None:
    captioner = _captioner(tiny_base_of(family))
    linear = {name for name, module in captioner.language_model.named_modules() if isinstance(module, nn.Linear)}
    changed = {name.removesuffix(".base_layer") for name in linear if name.endswith(".base_layer")}
    plain = {name for name in linear if ".lora_" not in name and not name.endswith(".base_layer")}
    assert plain == {"lm_head"}
    assert len(changed) >= 12
    one = {"llama": "q_proj", "opt": "fc1", "flan-t5": "wo"}[family]
    named = _captioner(tiny_base_of(family), lora={"r": 2, "target_modules": [one]})
    found = {name for name in named.trained_state() if ".lora_" in name}
    assert found
    assert all(f".{one}.lora_" in name for name in found)


def test_lora_on_layers_that_are_not_there_is_refused(tiny_base_of: Bases) -> None:
    with pytest.raises(ModelError, match=r"lora: .*'all-linear'"):
        _captioner(tiny_base_of("llama"), lora={"target_modules": ["no_such_layer"]})


def test_four_bits_without_cuda_are_refused_with_a_way_out(tiny_base_of: Bases) -> None:
    if torch.cuda.is_available():
        pytest.skip("here is a GPU")
    with pytest.raises(ModelError, match=r"CUDA GPU and bitsandbytes \(pip install 'wsi-mivpg\[quantised\]'\)"):
        _captioner(tiny_base_of("llama"), trains="lora-4bit")


@BOTH
@pytest.mark.parametrize("trains", ["adapter", "lora"])
def test_a_base_in_bf16_keeps_norms_and_what_trains_in_float32(
    tiny_base_of: Bases, cases: list[CaseBags], family: str, trains: str
) -> None:
    captioner = _captioner(tiny_base_of(family), trains=trains).eval()
    exact = _loss(captioner, cases).detach()
    hold_frozen_in(captioner.language_model, torch.bfloat16)
    half = 0
    for name, parameter in captioner.named_parameters():
        frozen_matrix = not parameter.requires_grad and parameter.ndim > 1
        assert parameter.dtype == (torch.bfloat16 if frozen_matrix else torch.float32), name
        half += frozen_matrix
    assert half > 10
    loss = _loss(captioner, cases)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact), rel=0.05)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in captioner.parameters() if p.grad is not None)
    made = captioner.generate(cases)
    assert all(one.token_logprobs.isfinite().all() for one in made)


@BOTH
def test_a_base_loaded_in_bf16_trains_in_float32(tiny_base_of: Bases, cases: list[CaseBags], family: str) -> None:
    captioner = SlideCaptioner.create(tiny_config(tiny_base_of(family)), dtype=torch.bfloat16).train()
    assert {tensor.dtype for tensor in captioner.trained_state().values()} == {torch.float32}
    assert captioner.language_model.get_input_embeddings().weight.dtype == torch.bfloat16
    _step(captioner, cases)
    assert captioner.eval().generate(cases)


@BOTH
@pytest.mark.parametrize("trains", ["adapter", "lora", "full"])
def test_layers_computed_again_give_the_same_gradients_from_fewer_kept_results(
    tiny_base_of: Bases, cases: list[CaseBags], family: str, trains: str
) -> None:
    gradients, kept = [], []
    for enabled in (False, True):
        captioner = _captioner(tiny_base_of(family), trains=trains, lora={"r": 2, "dropout": 0.5}).train()
        if enabled:
            captioner.gradient_checkpointing_enable()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            torch.manual_seed(5)
            loss = _loss(captioner, cases)
        loss.backward()
        gradients.append({name: p.grad for name, p in captioner.named_parameters() if p.grad is not None})
        kept.append(sum(sizes))
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
    assert kept[1] < 0.7 * kept[0]


def test_layers_can_be_kept_again(tiny_base_of: Bases, cases: list[CaseBags]) -> None:
    captioner = _captioner(tiny_base_of("llama"))
    layer = captioner.language_model.model.layers[0]
    captioner.gradient_checkpointing_enable()
    assert "forward" in vars(layer)
    captioner.gradient_checkpointing_disable()
    assert "forward" not in vars(layer)
    assert captioner.eval().generate(cases)


@BOTH
@pytest.mark.parametrize("trains", ["adapter", "lora", "full"])
@torch.no_grad()
def test_an_exported_language_model_is_a_plain_one_with_lora_added_in(
    tiny_base_of: Bases, tmp_path: Path, family: str, trains: str
) -> None:
    captioner = _captioner(tiny_base_of(family), trains=trains).eval()
    for name, parameter in captioner.language_model.named_parameters():
        if ".lora_" in name:
            parameter.normal_(std=0.3)
    export_language_model(captioner, tmp_path)
    auto = AutoModelForSeq2SeqLM if family == "flan-t5" else AutoModelForCausalLM
    plain, found = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    ids = torch.arange(5, 20)[None]
    more = {"decoder_input_ids": ids[:, :4]} if family == "flan-t5" else {}
    own = captioner.language_model(input_ids=ids, **more).logits
    torch.testing.assert_close(plain(input_ids=ids, **more).logits, own, atol=2e-3, rtol=1e-3)
