"""What can be said of texts without asking whether they are right: copied, repeating, long, all alike."""

from collections.abc import Iterable, Sequence

import numpy as np

from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Metric, mean_of, ratio_of
from wsi_mivpg.evaluation.tokenisers import NAMES, tokenise

_LONGEST_REPEAT = 8
_TIMES = 3


def output_metrics(pairs: Pairs, train_texts: Iterable[str] | None) -> list[Metric]:
    """Return the shares of texts that are right to the letter, copied from training, degenerate or empty, and lengths.

    Letters' case and white space do not count in comparisons.

    Args:
        pairs: raw texts.
        train_texts: training reports; None where there are none, and then nothing is said of copies.
    """
    own = [normal(text) for text in pairs.predictions]
    tokens = [tokenise(text) for text in pairs.predictions]
    lengths = np.array([len(one) for one in tokens], np.float64)
    wanted = np.array([np.mean([len(tokenise(text)) for text in texts]) for texts in pairs.references])
    exact = [text in {normal(one) for one in texts} for text, texts in zip(own, pairs.references, strict=True)]
    same = "case:ignored|white-space:ignored"
    counted = f"tok:{NAMES['words']}"
    metrics = [mean_of("exact_match", f"share|{same}", exact)]
    if train_texts is not None:
        known = {normal(text) for text in train_texts}
        copied = [text in known for text in own]
        metrics.append(mean_of("verbatim_in_train", f"share|{same}", copied, higher_is_better=None))
    repeats = [is_degenerate(one) for one in tokens]
    metrics += [
        mean_of("degenerate_repeats", f"share,1-8-grams-3-times-running|{counted}", repeats, higher_is_better=False),
        mean_of("empty", "share", [not text for text in own], higher_is_better=False),
        mean_of("length_mean", f"tokens|{counted}", lengths, higher_is_better=None),
        ratio_of("length_ratio", f"tokens-of-predictions/references|{counted}", lengths, wanted, higher_is_better=None),
    ]
    return metrics


def length_statistics(texts: Sequence[str]) -> dict[str, float]:
    """Return mean, standard deviation, smallest, median, 95th percentile and largest number of tokens."""
    lengths = np.array([len(tokenise(text)) for text in texts], np.float64)
    return {
        "mean": float(lengths.mean()),
        "sd": float(lengths.std()),
        "min": float(lengths.min()),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "max": float(lengths.max()),
    }


def distinct_share(texts: Sequence[str]) -> float:
    """Return how many different texts there are, over how many texts; 1 / n where all are alike."""
    return len({normal(text) for text in texts}) / len(texts)


def is_degenerate(tokens: Sequence[str]) -> bool:
    """Return whether one to eight words follow themselves at least three times running."""
    for width in range(1, _LONGEST_REPEAT + 1):
        run = 0
        for here, there in zip(tokens, tokens[width:], strict=False):
            run = run + 1 if here == there else 0
            if run >= width * (_TIMES - 1):
                return True
    return False


def normal(text: str) -> str:
    """Return a text in lower case with single spaces, for comparisons to the letter."""
    return " ".join(text.lower().split())
