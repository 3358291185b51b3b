"""The systems that are compared: one `SlideCaptioner` each, about equally large, around the same small language model.

The language model is a Llama of two layers that is trained from scratch, over the words of the templates.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from wsi_mivpg.captioner import CaptionerConfig, SlideCaptioner
from wsi_mivpg.mivpg import MivpgConfig
from wsi_mivpg.mivpg.baselines import ADAPTERS
from wsi_mivpg.mivpg.scenarios import HierarchicalMivpg

from .tiles import WIDTH

PROMPT = "Report:"
HEADS, QUERIES, LAYERS, HIDDEN = 4, 8, 4, 64
_TOKEN = r"\d+\.\d+|\w+|[^\w\s]"
_SPECIALS = ("<unk>", "<end>")
_FREE = {"mean_mlp": "hidden_size", "gated_abmil": "hidden_size"}


@dataclass(frozen=True)
class System:
    """What is compared: an adapter, and what is said of it in tables.

    Attributes:
        adapter: a key of `ADAPTERS`, or "hierarchical".
        settings: of `MivpgConfig`, beyond the common ones.
    """

    adapter: str
    settings: dict[str, Any] = field(default_factory=dict)


SYSTEMS: dict[str, System] = {
    "mean pooling": System("mean_mlp"),
    "gated ABMIL": System("gated_abmil"),
    "Perceiver": System("perceiver"),
    "Q-Former": System("qformer"),
    "MIVPG": System("mivpg"),
    "MIVPG + sequence PPEG": System("mivpg", {"ppeg": "sequence"}),
    "MIVPG + grid PPEG": System("mivpg", {"ppeg": "grid"}),
    "full attention": System("full_self_attention"),
    "hierarchical MIVPG": System("hierarchical"),
    "Q-Former + grid PPEG": System("mivpg", {"csa": False, "ppeg": "grid"}),
}
"""Name -> system. The last two are beyond the issue's list: slides pooled first, and positions without correlation."""
REFERENCE = "MIVPG"
"""The system whose size the others are given."""


def settings_of(system: System) -> dict[str, Any]:
    """Return the arguments of a system's `MivpgConfig`; the one free size makes it as large as `REFERENCE`'s."""
    common: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * HIDDEN,
        "encoder_hidden_size": HIDDEN,
        "num_query_tokens": QUERIES,
        "input_dim": WIDTH,
        "initializer_range": HIDDEN**-0.5,
        **system.settings,
    }
    if system == SYSTEMS[REFERENCE]:
        return common
    wanted = adapter_parameters(SYSTEMS[REFERENCE].adapter, settings_of(SYSTEMS[REFERENCE]))
    free = _FREE.get(system.adapter, "intermediate_size")
    # More of the free size is more parameters: halve the range in which the wanted number lies.
    low, high = 1, 1024
    while high - low > 1:
        middle = (low + high) // 2
        fits = adapter_parameters(system.adapter, {**common, free: HEADS * middle}) <= wanted
        low, high = (middle, high) if fits else (low, middle)
    return {**common, free: HEADS * low}


def adapter_parameters(adapter: str, settings: dict[str, Any]) -> int:
    """Return how many numbers an adapter learns; nothing is allocated."""
    config = MivpgConfig(**settings)
    with torch.device("meta"):
        model = HierarchicalMivpg(config) if adapter == "hierarchical" else ADAPTERS[adapter](config)
    return sum(parameter.numel() for parameter in model.parameters())


def word_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer over the words of these texts, in lower case."""
    split = pre_tokenizers.Split(Regex(_TOKEN), "removed", invert=True)
    words = {word for text in [*texts, PROMPT] for word, _ in split.pre_tokenize_str(text.lower())}
    vocabulary = {word: number for number, word in enumerate([*_SPECIALS, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_SPECIALS[0]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=_SPECIALS[0], eos_token=_SPECIALS[1])


def new_captioner(system: System, texts: list[str], seed: int) -> SlideCaptioner:
    """Build an untrained captioner; all systems of a seed begin with the same language model.

    Args:
        system: which adapter.
        texts: whose words the language model knows.
        seed: of the initial weights.
    """
    tokenizer = word_tokenizer(texts)
    torch.manual_seed(seed)
    language_model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=160,
            initializer_range=HIDDEN**-0.5,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
        )
    )
    config = CaptionerConfig(
        adapter=system.adapter,
        mivpg=settings_of(system),
        language_model="trained from scratch",
        trains="full",
        prompt=PROMPT,
        max_new_tokens=80,
    )
    return SlideCaptioner(config, language_model, tokenizer)
