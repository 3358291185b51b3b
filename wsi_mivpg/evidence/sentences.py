"""A report cut into sentences: which characters of the text, and which tokens of the language model, each one is.

It knows texts and tokens, no model and no tiles.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import cast

import pysbd
from transformers import PreTrainedTokenizerBase

from wsi_mivpg.errors import TextsError


@dataclass(frozen=True)
class Span:
    """A sentence.

    Attributes:
        text: its characters, without white space around them.
        start: where it begins in the report's text.
        end: where it ends, exclusive.
        tokens: places of its tokens in the report's token ids; may be empty where one token is part of two sentences.
    """

    text: str
    start: int
    end: int
    tokens: range


def sentence_spans(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], text: str) -> list[Span]:
    """Cut a report into sentences.

    Every token is of exactly one sentence: the one of its first visible character, or, where it has none, of the next.
    Only an end token is of none.

    Args:
        tokenizer: the language model's.
        token_ids: what was written.
        text: what the tokens say, without white space around it.

    Raises:
        TextsError: the tokens say something else.
    """
    bounds = sentence_bounds(text)
    if not bounds:
        return []
    firsts = _first_tokens(tokenizer, token_ids, text, [start for start, _ in bounds])
    return [
        Span(text[start:end], start, end, range(first, last))
        for (start, end), (first, last) in zip(bounds, pairwise(firsts), strict=True)
    ]


def phrase_tokens(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], text: str, start: int, end: int
) -> range:
    """Return the tokens of characters `start` to `end`: those whose first visible character is among them.

    Raises:
        TextsError: the tokens do not say `text`.
    """
    first, last, _ = _first_tokens(tokenizer, token_ids, text, [start, end])
    return range(first, last)


def sentence_bounds(text: str) -> list[tuple[int, int]]:
    """Return where each sentence begins and ends; together they hold every character that is not white space."""
    # pysbd, not syntok: reports are lists and lines, of which syntok joins neighbours and tears numbers off ("1.
    # Adenocarcinoma\n 2." is one sentence of it), and its offsets are wrong after "absent.Stroma". Both know "No. 2",
    # "Dr. X", "0.5 mm." and "(3/14)."; pysbd alone cuts after "approx.".
    pieces = cast(list[str], pysbd.Segmenter(language="en", clean=False).segment(text))
    starts: list[int] = []
    cursor = 0
    for piece in pieces:
        found = text.find(piece.strip(), cursor) if piece.strip() else -1
        if found >= 0:
            starts.append(found)
            cursor = found + len(piece.strip())
    first = len(text) - len(text.lstrip())
    # From one beginning to the next: what the library changed or lost stays with the sentence before it.
    edges = [first, *(start for start in starts if start > first), len(text)]
    return [(start, start + len(text[start:end].rstrip())) for start, end in pairwise(edges) if text[start:end].strip()]


def _first_tokens(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], text: str, starts: list[int]
) -> list[int]:
    """Return the first token at or after each of these places of the text, and where the last token's part ends."""
    places = _token_starts(tokenizer, token_ids, text)
    return [bisect_left(places, start) for start in starts] + [len(places)]


def _token_starts(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], text: str) -> list[int]:
    """Return the place in `text` of each token's first visible character or the next one; no place for an end token."""
    ids = list(token_ids)
    whole = _decoded(tokenizer, ids)
    if whole.strip() != text:
        raise TextsError(
            f"the tokens say {whole.strip()[:60]!r}, but the report's text is {text[:60]!r}; give both of one report"
        )
    lead = len(whole) - len(whole.lstrip())
    visible = [place for place, character in enumerate(whole) if not character.isspace()]
    # Tokens may hold parts of a character: until it is complete, what is decoded ends in a replacement character.
    ends = [_common(_decoded(tokenizer, ids[: place + 1]), whole) for place in range(len(ids))]
    ends = list(accumulate(ends, max))
    starts = []
    for place, start in enumerate([0, *ends[:-1]]):
        after = bisect_right(visible, start - 1)
        if after == len(visible) and place == len(ids) - 1:
            break  # the end token says nothing
        starts.append(visible[min(after, len(visible) - 1)] - lead)
    return starts


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return cast(str, tokenizer.decode(ids, skip_special_tokens=True))


def _common(one: str, other: str) -> int:
    """Return how many first characters two texts have in common."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
