"""Counts of n-grams of many texts at once, as sparse matrices; the ground of BLEU and CIDEr."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

ORDERS = 4


@dataclass(frozen=True, eq=False)
class Counts:
    """How often each n-gram stands in each text.

    Attributes:
        of_order: for n = 1..4 the counts, float64 (n_texts, n different n-grams of all texts).
        lengths: tokens of each text, int64 (n_texts,).
    """

    of_order: tuple[csr_array, ...]
    lengths: NDArray[np.int64]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> "Counts":
        """Return the counts of some texts."""
        return Counts(tuple(matrix[rows] for matrix in self.of_order), self.lengths[rows])


def count_ngrams(texts: Sequence[str]) -> Counts:
    """Count the n-grams (n = 1..4) of texts whose tokens are separated by white space."""
    split = [text.split() for text in texts]
    lengths = np.array([len(tokens) for tokens in split], np.int64)
    vocabulary: dict[str, int] = {}
    tokens = np.array([vocabulary.setdefault(token, len(vocabulary)) for one in split for token in one], np.int64)
    rows = np.repeat(np.arange(len(texts)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # tokens from here to the text's end
    codes = tokens
    matrices = []
    for order in range(1, ORDERS + 1):
        starts = np.flatnonzero(left >= order)
        if order > 1:
            # An n-gram is an (n-1)-gram and the token after it; both have small numbers, so the pair has one too.
            codes[starts] = codes[starts] * max(len(vocabulary), 1) + tokens[starts + order - 1]
        different, renumbered = np.unique(codes[starts], return_inverse=True)
        codes = np.zeros_like(tokens)
        codes[starts] = renumbered
        ones = np.ones(len(starts))
        matrix = csr_array((ones, (rows[starts], renumbered)), shape=(len(texts), len(different)))
        matrix.sum_duplicates()
        matrices.append(matrix)
    return Counts(tuple(matrices), lengths)


def largest_of_groups(matrix: csr_array, groups: NDArray[np.int64], n_groups: int) -> csr_array:
    """Return, for each group of rows, the largest count of each column: float64 (n_groups, columns)."""
    entries = matrix.tocoo()
    keys = groups[entries.coords[0]] * max(matrix.shape[1], 1) + entries.coords[1]
    different, where = np.unique(keys, return_inverse=True)
    largest = np.zeros(len(different))
    np.maximum.at(largest, where, entries.data)
    rows, columns = np.divmod(different, max(matrix.shape[1], 1))
    return csr_array((largest, (rows, columns)), shape=(n_groups, matrix.shape[1]))
