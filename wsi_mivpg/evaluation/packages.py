"""BLEU as sacreBLEU computes it and ROUGE as rouge-score does: the forms that papers outside captioning report."""

import numpy as np

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Array, Metric, mean_of


def sacrebleu_metrics(pairs: Pairs) -> list[Metric]:
    """Return sacreBLEU's corpus BLEU with its defaults (13a, case kept, exponential smoothing), 0..100.

    Raises:
        TextsError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise TextsError(f"sacrebleu is not installed whole ({error}); pip install 'wsi-mivpg[evaluate]'") from error
    scorer = BLEU(effective_order=True)  # only counts are taken from it; it would warn of sentences otherwise
    rows = []
    for written, wanted in zip(pairs.predictions, pairs.references, strict=True):
        found = scorer.sentence_score(written, list(wanted))
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])

    def of_one_sum(sums: Array) -> float:
        right, all_, (own, wanted) = np.split(sums.round().astype(int), (4, 8))
        return float(BLEU.compute_bleu(list(right), list(all_), int(own), int(wanted), smooth_method="exp").score)

    counts = {len(texts) for texts in pairs.references}
    n_references = str(counts.pop()) if len(counts) == 1 else "var"
    signature = f"nrefs:{n_references}|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    return [
        Metric(
            "sacrebleu",
            f"sacreBLEU|0-100|{signature}",
            np.array(rows, np.float64),
            lambda sums: np.asarray(np.apply_along_axis(of_one_sum, -1, sums), np.float64),
        )
    ]


def rouge_score_metrics(pairs: Pairs) -> list[Metric]:
    """Return F1 of ROUGE-1, ROUGE-2 and ROUGE-L with Porter stems; of several references the best counts.

    Raises:
        TextsError: rouge-score is not installed.
    """
    try:
        from importlib import metadata

        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise TextsError(f"rouge-score is not installed whole ({error}); pip install 'wsi-mivpg[evaluate]'") from error
    kinds = {"rouge1": "rouge1_f1", "rouge2": "rouge2_f1", "rougeL": "rougel_f1"}
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    found = [
        scorer.score_multi(list(wanted), written)
        for written, wanted in zip(pairs.predictions, pairs.references, strict=True)
    ]
    version = metadata.version("rouge-score")
    return [
        mean_of(
            name,
            f"rouge-score|{kind}|F1|stemmer:porter|case:lower|refs:best|version:{version}",
            [one[kind].fmeasure for one in found],
        )
        for kind, name in kinds.items()
    ]
