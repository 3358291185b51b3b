"""Tiny random language models of every family with a character tokenizer, saved as Hugging Face models are."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
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
CHATML = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<|unk|>", "<|im_start|>", "<|im_end|>"]
START, END = 1, 2
VOCABULARY = len(SPECIALS) + 96

# A wide start: with the usual 0.02 the frozen output layer could not tell tokens apart at this width.
_IDS = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": 0, "vocab_size": VOCABULARY}
_SMALL = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
_DECODER = {**_IDS, **_SMALL, "num_key_value_heads": 2, "initializer_range": 0.3}
_T5 = {
    "d_model": 48,
    "d_kv": 12,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "initializer_factor": 1.0,
    "dropout_rate": 0.0,
}
_OPT = {"hidden_size": 48, "word_embed_proj_dim": 48, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
_BART = {"d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96}
_HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "init_std": 0.3, "max_position_embeddings": 256}
_STARTS = {**_IDS, "decoder_start_token_id": 0}

DECODERS: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**_DECODER)),
    "opt": (OPTForCausalLM, OPTConfig(**_IDS, **_OPT, init_std=0.3, max_position_embeddings=256)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**_DECODER)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**_DECODER, head_dim=12)),
    "gemma": (GemmaForCausalLM, GemmaConfig(**_DECODER, head_dim=12)),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**_DECODER, head_dim=12)),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**_DECODER, head_dim=12)),
    "mistral": (MistralForCausalLM, MistralConfig(**_DECODER, head_dim=12)),
    "phi": (PhiForCausalLM, PhiConfig(**_DECODER)),
    "phi3": (Phi3ForCausalLM, Phi3Config(**_DECODER)),
}
ENCODER_DECODERS: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "flan-t5": (
        T5ForConditionalGeneration,
        T5Config(**_STARTS, **_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    ),
    "bart": (BartForConditionalGeneration, BartConfig(**_STARTS, **_BART, **_HEADS, forced_eos_token_id=None)),
}
FAMILIES = {**DECODERS, **ENCODER_DECODERS}


def tiny_tokenizer(family: str = "llama", *, chat: bool = False) -> PreTrainedTokenizerBase:
    """Return a tokenizer over printable characters; as in the originals, OPT's begins texts and T5's ends them."""
    characters = ["\n", *(chr(code) for code in range(32, 127))]
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    added = {"opt": f"{SPECIALS[START]} $A", "flan-t5": f"$A {SPECIALS[END]}", "bart": f"$A {SPECIALS[END]}"}
    if family in added:
        ends = [(SPECIALS[START], START), (SPECIALS[END], END)]
        tokenizer.post_processor = processors.TemplateProcessing(single=added[family], special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|unk|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE if chat else None,
    )


def write_tiny_language_model(folder: Path, family: str = "llama", *, chat: bool = False) -> None:
    """Write a two-layer model of a family over printable characters, with `<|im_end|>` as the end."""
    tiny_tokenizer(family, chat=chat).save_pretrained(folder)
    torch.manual_seed(0)
    architecture, config = FAMILIES[family]
    model = architecture(config)
    if family == "flan-t5":
        untie(model)
    model.save_pretrained(folder)


def untie(model: PreTrainedModel) -> None:
    """Give a T5 a head of its own, as FLAN's is."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(0.4 * torch.randn_like(head.weight))


def tiny_config(tiny_language_model: Path, **changes: Any) -> CaptionerConfig:
    """Return a configuration over a tiny language model; what `changes` names differs."""
    settings = {
        "mivpg": MIVPG,
        "language_model": str(tiny_language_model),
        "trains": "lora",
        "lora": {"r": 4, "dropout": 0.0},
        "prompt": "What?",
        "prompt_template": CHATML,
        "max_new_tokens": 24,
        "encoder": "some-encoder",
        "encoder_weights_sha256": "abc",
        "feature_dim": 12,
        "target_mpp": 0.5,
        "tile_px": 224,
    }
    return CaptionerConfig(**{**settings, **changes})


def tiny_base(family: str = "llama") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a tiny language model and its tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_language_model(Path(folder), family)
        return load_language_model(folder)
