"""One sequence of what a language model reads and writes: visual prompt ++ prompt, and the report, for both families.

A decoder-only model reads all in one row; an encoder-decoder reads the prompts in its encoder, and its decoder writes
the report. It knows tokens and embeddings, no bags.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wsi_mivpg.errors import ModelError

IGNORED = -100
PROMPT = "{prompt}"
_PLACE = "\N{WHITE SQUARE}prompt\N{WHITE SQUARE}"


@dataclass(frozen=True)
class Wording:
    """How prompts and reports become the token ids of one language model.

    Attributes:
        tokenizer: the language model's.
        template: text around the prompt; ``None``: the prompt alone.
        encoder_decoder: the prompt goes to an encoder.
        end_id: the token that ends a report.
        vocabulary: number of the model's token embeddings.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str | None
    encoder_decoder: bool
    end_id: int
    vocabulary: int

    def prompt_ids(self, prompt: str) -> list[int]:
        """Return a prompt's token ids.

        A decoder's template is taken literally; without one, and before an encoder, the tokenizer adds what it always
        adds (OPT's ``</s>`` in front, T5's ``</s>`` at the end), as BLIP-2 has it.
        """
        text = prompt.rstrip(" ") if self.template is None else self.template.replace(PROMPT, prompt)
        ids = self._ids(text, add_special_tokens=self.encoder_decoder or self.template is None)
        if not self.encoder_decoder and self.template is None and len(ids) > 1 and ids[-1] == self.end_id:
            ids.pop()  # the report is still to come
        return ids

    def report_ids(self, report: str) -> list[int]:
        """Return a report's token ids with the end token: what is not taught to end does not end."""
        text = report.strip()
        if text and self.template is None and not self.encoder_decoder:
            text = f" {text}"  # it goes on from the prompt's last word
        return [*self._ids(text, add_special_tokens=False), self.end_id]

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        ids = cast(list[int], self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])
        if ids and max(ids) >= self.vocabulary:
            raise ModelError(
                f"the tokenizer writes {text[:40]!r} with token {max(ids)}, but the language model knows "
                f"{self.vocabulary} tokens; give the model its own tokenizer"
            )
        return ids


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return a user's turn and the start of the assistant's, as the tokenizer writes them; None if it has no template.

    Thinking is off, and where a template tells the day, it is always the same: a prompt must not change overnight.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    turn = [{"role": "user", "content": _PLACE}]
    fixed: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}  # Llama's own default
    text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, **fixed))
    if text.count(_PLACE) != 1:
        raise ModelError("the tokenizer's chat template does not repeat the user's text; set prompt_template")
    return text.replace(_PLACE, PROMPT)


def pad_labels(token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Return int64 (B, T) token ids, -100 after each row's end."""
    rows = [torch.tensor(ids, dtype=torch.long) for ids in token_ids]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)


def embed(language_model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return embeddings (..., width) as the first layer reads them; some models scale them on the way."""
    embedded: Tensor = cast(Any, language_model).get_input_embeddings()(ids)
    return embedded


def join_prompts(
    language_model: PreTrainedModel, visual: Sequence[Tensor], prompts: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Put each visual prompt (R, width) before its prompt's tokens.

    Shorter rows are padded where a model does not count: on the left before a decoder, which goes on from the right,
    and on the right before an encoder.

    Returns:
        embeddings (B, R + P, width) and an int64 mask of the same rows, 0 where padded.

    Raises:
        ModelError: a row is empty.
    """
    device = visual[0].device
    side = "right" if language_model.config.is_encoder_decoder else "left"
    rows = []
    for one, ids in zip(visual, prompts, strict=True):
        if not len(one) and not ids:
            raise ModelError("neither a slide nor a prompt to read; give a prompt that is not empty")
        words = embed(language_model, torch.tensor(ids, dtype=torch.long, device=device))
        rows.append(torch.cat([one.to(words.dtype), words]))
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side=side)
    ones = [torch.ones(len(row), dtype=torch.long, device=device) for row in rows]
    return padded, nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)


def report_logits(
    language_model: PreTrainedModel, prompts: Tensor, mask: Tensor, labels: Tensor, end_id: int
) -> Tensor:
    """Return the logits of the report's tokens alone, float (B, T, vocabulary), each given the ones before it.

    Args:
        language_model: of either family.
        prompts: (B, S, width), of one length.
        mask: int64 (B, S), all ones.
        labels: int64 (B, T), -100 after each report's end.
        end_id: any token, which stands where nothing is asked.
    """
    model = cast(Any, language_model)
    if language_model.config.is_encoder_decoder:
        shifted = model.prepare_decoder_input_ids_from_labels(labels)
        output = model(inputs_embeds=prompts, attention_mask=mask, decoder_input_ids=shifted, use_cache=False)
        return cast(Tensor, output.logits)
    inputs = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, end_id)
    # Reports end where they end: what follows is causal and ignored, so that no attention mask is needed.
    sequence = torch.cat([prompts, embed(language_model, inputs)], dim=1)
    logits = model(inputs_embeds=sequence, logits_to_keep=labels.shape[1], use_cache=False).logits
    return cast(Tensor, logits)


def report_loss(logits: Tensor, labels: Tensor, count: Tensor | int | None) -> Tensor:
    """Return the cross-entropy per report token: the mean, or the sum over `count` tokens of a larger batch."""
    if count is None:
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
    total = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (count.to(total.device) if isinstance(count, Tensor) else count)


def check_length(language_model: PreTrainedModel, visual: int, prompt: int, report: int) -> None:
    """Refuse so many tokens where the language model has too few positions for them.

    Raises:
        ModelError: naming the numbers of tokens and the limit.
    """
    config = language_model.config
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    read = visual + prompt
    needed = max(read, report) if config.is_encoder_decoder else read + report
    if limit is not None and needed > limit:
        raise ModelError(
            f"{visual} visual tokens, {prompt} of the prompt and {report} of the report are more than the {limit} "
            "positions of the language model; shorten the prompt or the report, or lower max_new_tokens"
        )


def start_like_tokens(projection: nn.Linear, language_model: PreTrainedModel) -> None:
    """Initialise so that visual prompts, made of layer-normed queries, are as long as embedded tokens."""
    rows = cast(nn.Embedding, language_model.get_input_embeddings()).num_embeddings
    with torch.no_grad():
        lengths = [
            embed(language_model, ids.to(language_model.device)).float().norm(dim=1)
            for ids in torch.arange(rows).split(8192)
        ]
        mean = float(torch.cat(lengths).mean())
        nn.init.normal_(projection.weight, std=mean / (projection.in_features * projection.out_features) ** 0.5)
        nn.init.zeros_(projection.bias)
