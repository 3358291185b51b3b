"""What a language model has read of several rows so far, and how likely each continuation is.

Tokens in, log-probabilities out. A decoder keeps what it computed of the rows' beginnings, so that a hundred values of
a field cost their own tokens alone; an encoder-decoder keeps its encoder's side and reads what was written anew.
"""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.captioner.sequences import embed, join_prompts, pad_labels
from wsi_mivpg.captioner.trainable import autocast_to_base

Ids = Sequence[int]
_ROWS = 64
"""Continuations that are scored at once; a row holds a copy of what was read before it."""


def start_reading(
    captioner: SlideCaptioner, visual: Sequence[Tensor], prompts: Sequence[Ids]
) -> "DecoderReading | EncoderDecoderReading":
    """Let the language model read visual prompts, each (R, width), and after each the tokens of its prompt."""
    kind = EncoderDecoderReading if captioner.wording.encoder_decoder else DecoderReading
    return kind.of(captioner, visual, prompts)


class DecoderReading:
    """Rows before a decoder. Rows differ in length: `mask` says which places of the cache are read.

    Attributes:
        last: float32 (B, vocabulary): log-probability of each row's next token.
    """

    def __init__(self, captioner: SlideCaptioner, cache: Any, mask: Tensor, last: Tensor) -> None:
        self.captioner = captioner
        self.cache = cache
        self.mask = mask
        self.last = last

    @classmethod
    def of(cls, captioner: SlideCaptioner, visual: Sequence[Tensor], prompts: Sequence[Ids]) -> "DecoderReading":
        """See `start_reading`."""
        with torch.no_grad(), autocast_to_base(captioner.language_model):
            embedded, mask = join_prompts(captioner.language_model, visual, [list(ids) for ids in prompts])
            output = cast(Any, captioner.language_model)(
                inputs_embeds=embedded,
                attention_mask=mask,
                position_ids=_positions(mask),
                use_cache=True,
                logits_to_keep=1,
            )
        return cls(captioner, output.past_key_values, mask, output.logits[:, -1].float().log_softmax(-1))

    def rows(self, places: Sequence[int]) -> "DecoderReading":
        """Return these rows, which go on by themselves; a row may be taken several times."""
        chosen = torch.tensor(places, device=self.mask.device)
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(chosen)
        return DecoderReading(self.captioner, cache, self.mask[chosen], self.last[chosen])

    def append(self, ids: Sequence[Ids]) -> None:
        """Read more tokens, for each row its own, or none."""
        logits = self._read(ids)
        ends = torch.tensor([len(row) - 1 for row in ids], device=logits.device)
        new = logits[torch.arange(len(ids), device=logits.device), ends.clamp(min=0)].float().log_softmax(-1)
        self.last = torch.where((ends >= 0)[:, None], new, self.last)

    def score(self, candidates: Sequence[Ids]) -> list[list[Tensor]]:
        """Return for each row and each candidate the log-probability of each of its tokens, float32 on the CPU."""
        scored: list[list[Tensor]] = [[] for _ in range(len(self.mask))]
        at_once = max(1, _ROWS // len(self.mask))
        for start in range(0, len(candidates), at_once):
            some = candidates[start : start + at_once]
            places = [row for row in range(len(self.mask)) for _ in some]
            ids = list(some) * len(self.mask)
            before = [row[:-1] for row in ids]
            rest = self.rows(places)._read(before) if any(before) else None
            for number, (row, tokens) in enumerate(zip(places, ids, strict=True)):
                first = self.last[row, tokens[0]].cpu()[None]
                scored[row].append(first if rest is None else torch.cat([first, _chosen(rest[number], tokens[1:])]))
        return scored

    @torch.no_grad()
    def _read(self, ids: Sequence[Ids]) -> Tensor:
        """Put tokens into the cache and return the logits after each, (B, T, vocabulary)."""
        model, device = self.captioner.language_model, self.mask.device
        rows = [torch.tensor(list(row), dtype=torch.long) for row in ids]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.captioner.end_id).to(device)
        ones = [torch.ones(len(row), dtype=torch.long) for row in rows]
        known = self.mask.shape[1]
        self.mask = torch.cat([self.mask, nn.utils.rnn.pad_sequence(ones, batch_first=True).to(device)], dim=1)
        with autocast_to_base(model):
            output = cast(Any, model)(
                inputs_embeds=embed(model, tokens),
                attention_mask=self.mask,
                position_ids=_positions(self.mask)[:, known:],
                past_key_values=self.cache,
                use_cache=True,
            )
        self.cache = output.past_key_values
        return cast(Tensor, output.logits)


class EncoderDecoderReading:
    """Rows before an encoder-decoder: what the encoder made of the prompts, and what the decoder has written.

    Attributes:
        last: float32 (B, vocabulary): log-probability of each row's next token.
    """

    def __init__(self, captioner: SlideCaptioner, encoded: Tensor, mask: Tensor, written: Sequence[Ids]) -> None:
        self.captioner = captioner
        self.encoded = encoded
        self.mask = mask
        self.written = [list(row) for row in written]
        self.last = self._next()

    @classmethod
    def of(cls, captioner: SlideCaptioner, visual: Sequence[Tensor], prompts: Sequence[Ids]) -> "EncoderDecoderReading":
        """See `start_reading`."""
        model = captioner.language_model
        with torch.no_grad(), autocast_to_base(model):
            embedded, mask = join_prompts(model, visual, [list(ids) for ids in prompts])
            encoded = cast(Any, model).get_encoder()(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        return cls(captioner, encoded, mask, [[] for _ in prompts])

    def rows(self, places: Sequence[int]) -> "EncoderDecoderReading":
        """Return these rows, which go on by themselves; a row may be taken several times."""
        chosen = torch.tensor(places, device=self.mask.device)
        written = [self.written[place] for place in places]
        return EncoderDecoderReading(self.captioner, self.encoded[chosen], self.mask[chosen], written)

    def append(self, ids: Sequence[Ids]) -> None:
        """Read more tokens, for each row its own, or none."""
        self.written = [[*row, *more] for row, more in zip(self.written, ids, strict=True)]
        self.last = self._next()

    def score(self, candidates: Sequence[Ids]) -> list[list[Tensor]]:
        """Return for each row and each candidate the log-probability of each of its tokens, float32 on the CPU."""
        scored: list[list[Tensor]] = [[] for _ in self.written]
        for ids in candidates:
            wholes = [[*row, *ids] for row in self.written]
            logits = self._read(wholes)
            for row, before in enumerate(self.written):
                scored[row].append(_chosen(logits[row, len(before) :], ids))
        return scored

    def _next(self) -> Tensor:
        logits = self._read([[*row, self.captioner.end_id] for row in self.written])
        ends = torch.tensor([len(row) for row in self.written], device=logits.device)
        return logits[torch.arange(len(ends), device=logits.device), ends].float().log_softmax(-1)

    @torch.no_grad()
    def _read(self, ids: Sequence[Ids]) -> Tensor:
        """Return the logits of each of these tokens from those before it, (B, T, vocabulary)."""
        model = cast(Any, self.captioner.language_model)
        labels = pad_labels(ids).to(self.mask.device)
        with autocast_to_base(self.captioner.language_model):
            output = model(
                encoder_outputs=(self.encoded,),
                attention_mask=self.mask,
                decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
                use_cache=False,
            )
        return cast(Tensor, output.logits)


def _positions(mask: Tensor) -> Tensor:
    """Return each place's number among those that its row reads, int64 (B, S)."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _chosen(logits: Tensor, ids: Ids) -> Tensor:
    """Return the log-probability of each token from its row of logits (T or more, vocabulary), on the CPU."""
    logprobs = logits[: len(ids)].float().log_softmax(-1)
    return logprobs[torch.arange(len(ids)), torch.tensor(list(ids), dtype=torch.long)].cpu()
