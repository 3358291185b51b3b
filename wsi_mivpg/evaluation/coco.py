"""BLEU-1..4, ROUGE-L and CIDEr-D with the arithmetic of the COCO caption toolkit (pycocoevalcap 1.2), and CIDEr
without its penalty for length.

The same numbers to 1e-9, many times faster, and as statistics that can be resampled. Texts come tokenised.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Array, Metric, mean_of
from wsi_mivpg.evaluation.ngrams import ORDERS, Counts, count_ngrams, largest_of_groups
from wsi_mivpg.evaluation.tokenisers import NAMES, TOKENISERS

Rows = NDArray[np.int64]

_SMALL, _TINY = 1e-9, 1e-15  # the toolkit's, so that 0 of 0 n-grams is a number
_BETA = 1.2
_SIGMA = 6.0
ONE_CASE = "CIDEr weighs words by how few cases have them: with one case every weight is log(1/1) = 0"


def coco_metrics(pairs: Pairs, tokeniser: str, prefix: str = "") -> list[Metric]:
    """Return BLEU-1..4, ROUGE-L, CIDEr-D and CIDEr without length penalty.

    Args:
        pairs: raw texts.
        tokeniser: a key of `TOKENISERS`.
        prefix: put before the metrics' names, to tell presets apart.

    Raises:
        TextsError: the tokeniser cannot run here.
    """
    tokenised = TOKENISERS[tokeniser]([*pairs.predictions, *(text for texts in pairs.references for text in texts)])
    n = len(pairs)
    owner = np.repeat(np.arange(n), [len(texts) for texts in pairs.references])
    counts = count_ngrams(tokenised)
    written, wanted = counts[:n], counts[n:]
    by = f"tok:{NAMES[tokeniser]}"
    metrics = [
        Metric(
            f"{prefix}bleu_{order}",
            f"BLEU-{order}|corpus|ref-length:closest|smoothing:none(1e-15/1e-9)|{by}|as:pycocoevalcap-1.2",
            (statistics := _bleu_statistics(written, wanted, owner, n)) if order == 1 else statistics,
            _bleu_of_order(order),
        )
        for order in range(1, ORDERS + 1)
    ]
    rouge = [
        _rouge_l(one, [tokenised[n + row] for row in rows])
        for one, rows in zip(tokenised, _rows(owner, n), strict=False)
    ]
    metrics.append(mean_of(f"{prefix}rouge_l", f"ROUGE-L|F,beta:1.2|mean-of-cases|{by}|as:pycocoevalcap-1.2", rouge))
    penalised, free = cider_scores(written, wanted, owner)
    idf = f"n:1-4|idf:these-references|x10|{by}"
    for name, signature, scores in (
        ("cider_d", f"CIDEr-D|sigma:6|clipped|{idf}|as:pycocoevalcap-1.2", penalised),
        ("cider_length_free", f"CIDEr-D-without-length-penalty|clipped|{idf}", free),
    ):
        metric = mean_of(f"{prefix}{name}", signature, scores if n > 1 else np.full(n, np.nan), undefined=ONE_CASE)
        metrics.append(metric)
    return metrics


def cider_scores(written: Counts, wanted: Counts, owner: Rows) -> tuple[Array, Array]:
    """Return CIDEr-D of each case, and the same without the Gaussian penalty for length; each float64 (n,), 0..10.

    Args:
        written: counts of n predictions.
        wanted: counts of all references, over the same n-grams.
        owner: of each reference, the row of its prediction, int64.
    """
    n = len(written.lengths)
    gap = (written.lengths - 1).clip(0)[owner] - (wanted.lengths - 1).clip(0)  # the toolkit takes numbers of bigrams
    penalty = np.exp(-(gap.astype(np.float64) ** 2) / (2 * _SIGMA**2))
    similarity = np.zeros(len(owner))
    for own, others in zip(written.of_order, wanted.of_order, strict=True):
        present = largest_of_groups(others, owner, n)
        idf = np.log(n) - np.log(np.maximum(np.bincount(present.indices, minlength=others.shape[1]), 1.0))
        hypotheses = own.multiply(idf).tocsr()[owner]
        references = others.multiply(idf).tocsr()
        shared = np.asarray(hypotheses.minimum(references).multiply(references).sum(axis=1)).ravel()
        norms = _norm(hypotheses) * _norm(references)
        similarity += np.divide(shared, norms, out=np.zeros_like(shared), where=norms != 0)
    references_each = np.bincount(owner, minlength=n)
    per_case = [
        np.bincount(owner, weights=one, minlength=n) / references_each for one in (similarity * penalty, similarity)
    ]
    return per_case[0] * 10.0 / ORDERS, per_case[1] * 10.0 / ORDERS


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by bits of one whole number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for position, token in enumerate(first):
        places[token] = places.get(token, 0) | (1 << position)
    everything = (1 << len(first)) - 1
    row = everything
    for token in second:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(first) - row.bit_count()


def _rouge_l(written: str, references: Sequence[str]) -> float:
    """The toolkit splits at single spaces, so that an empty text is one empty token."""
    tokens = written.split(" ")
    lengths = [
        (lcs_length(tokens, reference), len(reference)) for reference in (text.split(" ") for text in references)
    ]
    precision = max(length / len(tokens) for length, _ in lengths)
    recall = max(length / of for length, of in lengths)
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _bleu_statistics(written: Counts, wanted: Counts, owner: Rows, n: int) -> Array:
    """Columns: right n-grams for n = 1..4, n-grams for n = 1..4, tokens, tokens of the closest reference."""
    columns = [
        np.asarray(own.minimum(largest_of_groups(others, owner, n)).sum(axis=1), np.float64).ravel()
        for own, others in zip(written.of_order, wanted.of_order, strict=True)
    ]
    columns += [(written.lengths - order).clip(0).astype(np.float64) for order in range(ORDERS)]
    # Closest by absolute difference, the shorter of two equally close ones.
    order = np.lexsort((wanted.lengths, np.abs(wanted.lengths - written.lengths[owner]), owner))
    first = order[np.searchsorted(owner[order], np.arange(n))]
    return np.stack([*columns, written.lengths.astype(np.float64), wanted.lengths[first].astype(np.float64)], axis=1)


def _bleu_of_order(order: int) -> Callable[[Array], Array]:
    def value(sums: Array) -> Array:
        right, all_, own, wanted = sums[..., :order], sums[..., ORDERS : ORDERS + order], sums[..., 8], sums[..., 9]
        precision = np.prod((right + _TINY) / (all_ + _SMALL), axis=-1) ** (1 / order)
        share = (own + _TINY) / (wanted + _SMALL)
        return np.asarray(np.where(share < 1, precision * np.exp(np.minimum(1 - 1 / share, 0)), precision))

    return value


def _rows(owner: Rows, n: int) -> list[Rows]:
    return np.split(np.arange(len(owner)), np.searchsorted(owner, np.arange(1, n)))


def _norm(matrix: csr_array) -> Array:
    return np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), np.float64).ravel())
