"""A captioner that starts from a BLIP-2 writes what transformers' BLIP-2 writes of the same image."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Blip2Config, Blip2ForConditionalGeneration

from tests.mivpg.blip2_checkpoints import PARTS, SIZES, WIDTH
from tests.tiny_captioner import END, FAMILIES, VOCABULARY, tiny_tokenizer, untie
from wsi_mivpg.captioner import CaptionerConfig, SlideCaptioner, in_memory, pack
from wsi_mivpg.captioner.sequences import IGNORED, pad_labels
from wsi_mivpg.errors import ModelError

IMAGE = VOCABULARY  # the placeholder's id, one more than there are characters
NEWLINE = 3
LANGUAGE_MODELS = pytest.mark.parametrize("family", ["opt", "flan-t5"])


def _text_config(family: str) -> dict[str, Any]:
    """As published: OPT's ends with a new line, T5's activation is another than its gate's name implies."""
    own = {"opt": {"eos_token_id": NEWLINE}, "flan-t5": {"dense_act_fn": "gelu", "tie_word_embeddings": False}}
    return {**FAMILIES[family][1].to_dict(), "vocab_size": VOCABULARY + 1, **own[family]}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Blip2ForConditionalGeneration, Path]]:
    made = {}
    for family in ("opt", "flan-t5"):
        torch.manual_seed(0)
        parts = {**PARTS, "text_config": _text_config(family), "image_token_index": IMAGE}
        model = Blip2ForConditionalGeneration(Blip2Config(**parts)).eval()
        if family == "flan-t5":
            untie(model.language_model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp(f"blip2-{family}")
        model.save_pretrained(folder, max_shard_size="200KB")
        tiny_tokenizer(family).save_pretrained(folder)
        made[family] = (model, folder)
    return made


def _pixels() -> torch.Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def _images(model: Blip2ForConditionalGeneration) -> list[torch.Tensor]:
    return list(model.vision_model(_pixels()).last_hidden_state)


def _from(folder: Path) -> SlideCaptioner:
    torch.manual_seed(0)  # of what no checkpoint has: CSA
    return SlideCaptioner.from_blip2(folder)


@LANGUAGE_MODELS
@torch.no_grad()
def test_it_computes_what_blip2_computes_and_writes_what_it_writes(published: Any, family: str) -> None:
    theirs, folder = published[family]
    captioner = SlideCaptioner.from_blip2(folder)
    assert not captioner.training
    cases = [in_memory(str(number), image) for number, image in enumerate(_images(theirs))]
    prompt = torch.tensor([[IMAGE] * 5 + captioner.prompt_ids] * 3)
    labels = pad_labels([captioner.encode_report(text) for text in ("a cat", "two dogs", "rain")])
    logits = captioner(**pack(cases), labels=labels).logits
    if family == "flan-t5":
        expected = theirs(pixel_values=_pixels(), input_ids=prompt, labels=labels).logits
    else:
        ids = torch.cat([prompt, labels[:, :-1].clamp(min=0)], dim=1)
        expected = theirs(pixel_values=_pixels(), input_ids=ids).logits[:, -labels.shape[1] :]
    written = labels != IGNORED
    torch.testing.assert_close(logits[written], expected[written], atol=1e-3, rtol=1e-4)
    ends = [NEWLINE, END] if family == "opt" else [END]
    theirs_wrote = theirs.generate(
        pixel_values=_pixels(),
        input_ids=prompt,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=END,
    )
    first = theirs_wrote.shape[1] - 12 if family == "opt" else 1
    for ids, one in zip(
        theirs_wrote[:, max(first, 0) :].tolist(), captioner.generate(cases, max_new_tokens=12), strict=True
    ):
        assert tuple(ids[: len(one.token_ids)]) == one.token_ids


@LANGUAGE_MODELS
def test_every_part_is_the_checkpoints(published: Any, family: str) -> None:
    theirs, folder = published[family]
    captioner = SlideCaptioner.from_blip2(folder)
    own, stored = captioner.state_dict(), theirs.state_dict()
    assert torch.equal(own["language_projection.weight"], stored["language_projection.weight"])
    assert torch.equal(own["language_projection.bias"], stored["language_projection.bias"])
    for name, tensor in stored.items():
        if name.startswith("language_model."):
            assert torch.equal(own[name], tensor), name
        elif name.startswith(("qformer.", "query_tokens")):
            assert torch.equal(own[f"mivpg.{name}"], tensor), name
    if family == "flan-t5":
        act = captioner.language_model.encoder.block[0].layer[1].DenseReluDense.act
        assert act(torch.tensor(1.3)) == torch.nn.functional.gelu(torch.tensor(1.3))
    else:
        assert captioner.encode_report("a cat")[-1] == NEWLINE


@LANGUAGE_MODELS
def test_what_is_trained_on_it_is_saved_without_it_and_comes_back(published: Any, family: str, tmp_path: Path) -> None:
    config = CaptionerConfig(mivpg={**SIZES, "input_dim": 12}, prompt="What?", max_new_tokens=9, feature_dim=12)
    captioner = SlideCaptioner.from_blip2(published[family][1], config=config)
    case = in_memory("a", torch.randn(7, 12))
    captioner.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert not any(name.startswith("language_model.") for name in file.keys())  # noqa: SIM118
    again = SlideCaptioner.from_pretrained(tmp_path)
    assert again.config.prompt == "What?"
    assert again.encode_report("x") == captioner.encode_report("x")
    assert again.generate([case])[0].token_ids == captioner.generate([case])[0].token_ids


@LANGUAGE_MODELS
def test_neither_the_vision_tower_nor_other_tensors_are_needed(published: Any, family: str, tmp_path: Path) -> None:
    folder = published[family][1]
    tensors = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= load_file(shard)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("vision_model.")}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for file in folder.glob("*.json"):
        if "index" not in file.name:
            shutil.copy(file, tmp_path)
    whole, part = (_from(which).state_dict() for which in (folder, tmp_path))
    assert all(torch.equal(part[name], tensor) for name, tensor in whole.items())
    lost = next(name for name in kept if name.startswith("language_model.") and name.endswith("layer_norm.weight"))
    del kept[lost]
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are missing"):
        SlideCaptioner.from_blip2(tmp_path)


@pytest.mark.parametrize("adapter", ["qformer", "hierarchical"])
def test_other_adapters_with_a_qformer_start_from_it_too(published: Any, adapter: str) -> None:
    theirs, folder = published["opt"]
    captioner = SlideCaptioner.from_blip2(folder, config=CaptionerConfig(adapter=adapter, mivpg=SIZES))
    prefix = "mivpg.mivpg." if adapter == "hierarchical" else "mivpg."
    assert torch.equal(captioner.state_dict()[f"{prefix}query_tokens"], theirs.query_tokens)
    made = captioner.generate([in_memory("a", torch.randn(6, WIDTH), torch.randn(3, WIDTH))], max_new_tokens=3)
    assert made[0].attention.shape == (9,)


def test_what_cannot_start_is_refused(published: Any, tiny_language_model: Path, tmp_path: Path) -> None:
    folder = published["opt"][1]
    with pytest.raises(ModelError, match="the adapter 'mean_mlp' has no Q-Former"):
        SlideCaptioner.from_blip2(folder, config=CaptionerConfig(adapter="mean_mlp"))
    with pytest.raises(ModelError, match="holds no BLIP-2"):
        SlideCaptioner.from_blip2(tiny_language_model)
    with pytest.raises(ModelError, match="num_query_tokens 5, not 6"):
        SlideCaptioner.from_blip2(folder, config=CaptionerConfig(mivpg={**SIZES, "num_query_tokens": 6}))
    with pytest.raises(ModelError, match="cannot load the language model 'nowhere/blip2'"):
        SlideCaptioner.from_blip2("nowhere/blip2")
