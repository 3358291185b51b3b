"""Constrained decoding with llguidance: which tokens may come next, for the captioner's own tokenizer.

JSON Schema and tokens in, masks out; no model is run here.
"""

import json
import weakref
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch
from torch import Tensor

from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.errors import ModelError, PromptError

_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_known: "weakref.WeakKeyDictionary[SlideCaptioner, Vocabulary]" = weakref.WeakKeyDictionary()


class Vocabulary:
    """A captioner's tokens as bytes, for llguidance.

    Raises:
        ModelError: the tokens are not pieces of text, so that they cannot be put together to JSON.
    """

    def __init__(self, captioner: SlideCaptioner) -> None:
        self.name = captioner.config.language_model
        tokenizer: Any = captioner.tokenizer
        try:
            self.tokens = llguidance.hf.from_tokenizer(tokenizer)
        except ValueError:  # it knows bytes and sentence pieces; a vocabulary of plain words is ours to spell out
            self.tokens = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Plain(tokenizer)))

    @classmethod
    def of(cls, captioner: SlideCaptioner) -> "Vocabulary":
        """Return a captioner's, which takes a second to make and is kept."""
        if captioner not in _known:
            _known[captioner] = cls(captioner)
        return _known[captioner]

    def ids(self, text: str) -> list[int]:
        """Return tokens whose bytes are exactly this text, as the tokenizer writes it where it does so exactly.

        Raises:
            ModelError: no tokens write it.
        """
        ids: list[int]
        for ids in (self.tokens.tokenize_str(text), self.tokens.greedy_tokenize(text)):
            if self.tokens.decode_bytes(ids) == text.encode():
                return ids
        raise ModelError(
            f"the tokenizer of {self.name!r} cannot write {text!r}, so that this model cannot fill in JSON; use a "
            "language model with a byte-level vocabulary, or names and values that it can write"
        )

    def text(self, ids: list[int]) -> str:
        """Return what tokens write; bytes that are no text become a mark that stands for them."""
        return str(self.tokens.decode_bytes(ids).decode("utf-8", "replace"))

    def matcher(self, schema: dict[str, Any], end: str) -> "llguidance.LLMatcher":
        """Return what follows one value under a schema, after a space and up to and including `end`.

        Raises:
            PromptError: the schema cannot be followed.
        """
        matcher = llguidance.LLMatcher(self.tokens, _grammar(schema, end), log_level=0)
        if matcher.is_error():
            raise PromptError(f"the schema cannot be followed: {_first_line(matcher.get_error())}")
        return matcher


def allowed(matcher: "llguidance.LLMatcher", vocabulary: int) -> Tensor:
    """Return bool (vocabulary,): the tokens that may come next."""
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[:vocabulary]
    return torch.from_numpy(np.pad(bits, (0, vocabulary - len(bits))).astype(bool))


def check_grammar(schema: dict[str, Any], where: str) -> None:
    """Refuse a schema that cannot be followed token by token.

    Raises:
        PromptError: naming the keyword or format that is not supported.
    """
    wrong, messages = llguidance.LLMatcher.validate_grammar_with_warnings(_grammar(schema, ","))
    if wrong:
        raise PromptError(f"{where} cannot be filled: {_first_line(messages[0])}; say it with other keywords")


def _grammar(schema: dict[str, Any], end: str) -> str:
    spaced = json.dumps({**schema, "x-guidance": _SPACING}, ensure_ascii=False)
    lark = f'%llguidance {{}}\nstart: " " value {json.dumps(end)}\nvalue: %json {spaced}\n'
    return str(llguidance.LLMatcher.grammar_from_lark(lark))


def _first_line(message: str) -> str:
    return message.strip().split("\n")[0].split("failed to compile JSON schema: ")[-1]


class _Plain:
    """A tokenizer whose tokens are the text that they stand for, as llguidance asks for one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_token_id
        self.bos_token_id = tokenizer.bos_token_id
        self.special_token_ids = list(tokenizer.all_special_ids)
        special = set(self.special_token_ids)
        names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.tokens = [
            name.encode() if number not in special else b"\xff" + name.encode() for number, name in enumerate(names)
        ]

    def __call__(self, text: str) -> list[int]:
        ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        if self._tokenizer.decode(ids) != text:  # it puts something between words, or leaves something out
            return []
        return ids
