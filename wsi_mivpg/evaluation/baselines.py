"""What a model must beat to have learned anything from the slides: a report that ignores them."""

from collections import Counter
from collections.abc import Sequence

from wsi_mivpg.errors import TextsError


def most_frequent(train_texts: Sequence[str]) -> str:
    """Return the text that occurs most often among training reports; ties go to the one that came first.

    Raises:
        TextsError: there are no training reports.
    """
    if not train_texts:
        raise TextsError("the most-frequent baseline needs at least one training report")
    return Counter(train_texts).most_common(1)[0][0]
