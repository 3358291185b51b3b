"""A tiny language model with a character tokenizer, saved as Hugging Face models are."""

import tempfile
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from wsi_mivpg.captioner import CaptionerConfig, load_language_model

MIVPG = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "encoder_hidden_size": 24,
    "num_query_tokens": 4,
    "input_dim": 12,
    "hidden_dropout_prob": 0.0,
    "initializer_range": 0.15,  # the default, 0.02, is for wider models: here it would hide the bag
}
ADAPTER = {name: value for name, value in MIVPG.items() if name not in ("initializer_range", "hidden_dropout_prob")}
REPORTS = ["benign", "adenocarcinoma in 20%", "squamous, 5%", "necrosis"]


def write_tiny_language_model(folder: Path) -> None:
    """Write a two-layer Llama over printable characters, with `<|im_end|>` as the end."""
    specials = ["<|unk|>", "<|im_start|>", "<|im_end|>"]
    characters = ["\n", *(chr(code) for code in range(32, 127))]
    vocabulary = {token: index for index, token in enumerate([*specials, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|unk|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    settings = {"vocab_size": len(vocabulary), "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    # A wide start: with the usual 0.02 the frozen output layer could not tell tokens apart at this width.
    config = LlamaConfig(**settings, **heads, pad_token_id=2, initializer_range=0.3)
    LlamaForCausalLM(config).save_pretrained(folder)


def tiny_config(tiny_language_model: Path) -> CaptionerConfig:
    return CaptionerConfig(
        mivpg=MIVPG,
        language_model=str(tiny_language_model),
        lora={"r": 4, "dropout": 0.0},
        prompt="What?",
        max_new_tokens=24,
        encoder="some-encoder",
        encoder_weights_sha256="abc",
        feature_dim=12,
        target_mpp=0.5,
        tile_px=224,
    )


def tiny_base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the tiny language model and its tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_language_model(Path(folder))
        return load_language_model(folder)
