"""What a model must beat to have learned anything from the slides: texts made without a model.

Each returns one text per case, from training reports, and from the true class or from mean features where it says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.errors import TextsError


def most_frequent(train_texts: Sequence[str]) -> str:
    """Return the text that occurs most often among training reports; ties go to the one that came first.

    Raises:
        TextsError: there are no training reports.
    """
    if not train_texts:
        raise TextsError("the most-frequent baseline needs at least one training report")
    return Counter(train_texts).most_common(1)[0][0]


def most_frequent_of_class(
    train_texts: Sequence[str], train_classes: Sequence[str], classes: Mapping[str, str]
) -> dict[str, str]:
    """Return, for each case, the most frequent training report of its true class, as a perfect classifier would.

    Args:
        train_texts, train_classes: one class a training report.
        classes: case id -> true class; a class that no training report has gets the most frequent of all.

    Raises:
        TextsError: there are no training reports.
    """
    overall = most_frequent(train_texts)
    of_class: dict[str, list[str]] = {}
    for text, name in zip(train_texts, train_classes, strict=True):
        of_class.setdefault(name, []).append(text)
    best = {name: most_frequent(texts) for name, texts in of_class.items()}
    return {case_id: best.get(name, overall) for case_id, name in classes.items()}


def nearest_neighbour(
    train_means: NDArray[np.floating], train_texts: Sequence[str], means: Mapping[str, NDArray[np.floating]]
) -> dict[str, str]:
    """Return, for each case, the report of the training case whose mean feature is most alike.

    Features are centred and scaled by the training cases, and compared by cosine; ties go to the first.

    Args:
        train_means: float (n, dim), one training case each.
        train_texts: n reports.
        means: case id -> float (dim,).

    Raises:
        TextsError: there are no training cases, or widths differ.
    """
    if not len(train_means):
        raise TextsError("the nearest-neighbour baseline needs at least one training case with a bag")
    wide = {mean.shape[-1] for mean in means.values()} | {train_means.shape[-1]}
    if len(wide) > 1:
        raise TextsError(f"bags have features of {sorted(wide)} numbers; take all of them from one encoder")
    centre, spread = train_means.mean(axis=0), train_means.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)

    def standard(features: NDArray[np.floating]) -> NDArray[np.floating]:
        centred = (features - centre) / scale
        return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-12))

    if not means:
        return {}
    alike = standard(np.stack(list(means.values()))) @ standard(train_means).T
    return {case_id: train_texts[row] for case_id, row in zip(means, alike.argmax(axis=1), strict=True)}
