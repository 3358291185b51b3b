"""Tiny random BLIP-2s around the language models of `tests.tiny_captioner`, saved as transformers saves them."""

from pathlib import Path

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration

from tests.mivpg.blip2_checkpoints import PARTS
from tests.tiny_captioner import FAMILIES, VOCABULARY, tiny_tokenizer

IMAGE = VOCABULARY  # the placeholder's id, one more than there are characters


def write_blip2(folder: Path, family: str) -> Blip2ForConditionalGeneration:
    """Write a BLIP-2 with its tokenizer, every parameter away from its start, and return it."""
    torch.manual_seed(0)
    text = {**FAMILIES[family][1].to_dict(), "vocab_size": VOCABULARY + 1}
    model = Blip2ForConditionalGeneration(Blip2Config(**{**PARTS, "text_config": text, "image_token_index": IMAGE}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder, max_shard_size="200KB")
    tiny_tokenizer(family).save_pretrained(folder)
    return model
