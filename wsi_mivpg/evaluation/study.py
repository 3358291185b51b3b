"""A whole evaluation: a model's texts, everything that stands beside them, how sure it is, and the worst cases.

Reads no files and prints nothing; `tables` and `page` show the result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsi_mivpg.evaluation.clinical import Vocabulary, clinical_metrics, load_vocabulary
from wsi_mivpg.evaluation.controls import IMAGE_CONTROLS, System, unchanged_share
from wsi_mivpg.evaluation.joining import JoinReport, Pairs
from wsi_mivpg.evaluation.metric import Array, Metric
from wsi_mivpg.evaluation.outputs import distinct_share, length_statistics, output_metrics
from wsi_mivpg.evaluation.presets import PRESETS, Tools
from wsi_mivpg.evaluation.reg2025 import ABOVE_ONE
from wsi_mivpg.evaluation.statistics import Difference, interval, paired, patient_rows, resampled
from wsi_mivpg.evaluation.truth import KEYS, is_complete, truth_metrics
from wsi_mivpg.evaluation.worst_cases import CaseView, worst_cases

MAIN_METRICS = (
    "bleu_4",
    "rouge_l",
    "cider_d",
    "truth.finding_accuracy",
    "field.diagnosis_class.recall",
    "field.histological_type.recall",
    "negation_flips",
)
"""What comparisons between systems show, fixed beforehand; p values are corrected for these."""


@dataclass(frozen=True)
class Settings:
    """How to evaluate.

    Attributes:
        presets: keys of `presets.PRESETS`.
        n_resamples: bootstrap samples of patients.
        seed: of the bootstrap and of the permutations.
        n_worst: cases to show.
        vocabulary: a TOML file over the package's clinical vocabulary.
        embedding_model: folder of a text encoder.
    """

    presets: tuple[str, ...] = ("words",)
    n_resamples: int = 1000
    seed: int = 0
    n_worst: int = 50
    vocabulary: Path | None = None
    embedding_model: Path | None = None


@dataclass(frozen=True)
class Score:
    """A figure and its 95 % interval; what is None has its reason."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


@dataclass(frozen=True)
class SystemScores:
    """All figures of one system; `lengths` are in tokens, `distinct` is a share."""

    name: str
    kind: str
    scores: Mapping[str, Score]
    lengths: Mapping[str, float]
    distinct: float


@dataclass(frozen=True)
class Comparison:
    """The model minus another system, on the same patients; `unchanged` is the share of texts that are alike."""

    system: str
    kind: str
    unchanged: float
    differences: Mapping[str, Difference]

    @property
    def is_image_control(self) -> bool:
        """Whether the other system is the model itself without its slide."""
        return self.kind == "control" and self.system in IMAGE_CONTROLS


@dataclass(frozen=True)
class Study:
    """The result of an evaluation; signatures and reasons by metric."""

    n_cases: int
    n_patients: int
    join: JoinReport
    settings: Settings
    systems: tuple[SystemScores, ...]
    comparisons: tuple[Comparison, ...]
    signatures: Mapping[str, str]
    absent: Mapping[str, str]
    notes: tuple[str, ...]
    worst: tuple[CaseView, ...]


def run_study(
    model: System,
    others: Sequence[System],
    pairs: Pairs,
    join: JoinReport,
    settings: Settings,
    *,
    patients: Sequence[str] | None = None,
    truths: Sequence[Mapping[str, Any]] | None = None,
    train_texts: Sequence[str] | None = None,
    absent: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    advance: Callable[[int, int, str], None] | None = None,
) -> Study:
    """Evaluate a model and everything that stands beside it on the same cases.

    Args:
        model: what is evaluated; its texts are those of `pairs`.
        others: systems to compare it with, controls and baselines.
        pairs, join: from `joining.join`.
        settings: how.
        patients: of each case; None takes every case as a patient of its own, and a note says so.
        truths: of each case; None where unknown.
        train_texts: training reports, to find copies; None where there are none.
        absent: systems that could not be made, and why.
        notes: what a reader must know of the inputs.
        advance: is told after each system, as ``advance(done, total, name)``.

    Raises:
        TextsError: the vocabulary or the text encoder cannot be loaded.
    """
    tools, vocabulary = Tools(settings.embedding_model), load_vocabulary(settings.vocabulary)
    by_patient = list(patients) if patients is not None else list(pairs.case_ids)
    said, missing = list(notes), dict(absent or {})
    if patients is None:
        said.append(
            "no column patient_id: each case counts as a patient of its own, which narrows the intervals if it is not"
        )
    systems = [model, *others]
    metrics: dict[str, list[Metric]] = {}
    shown = []
    for number, system in enumerate(systems, 1):
        written = pairs.written_by(system.texts)
        metrics[system.name], lacking = _metrics(written, settings, tools, vocabulary, truths, train_texts)
        missing |= lacking
        values = resampled(metrics[system.name], by_patient, settings.n_resamples, settings.seed)
        n_patients = patient_rows(by_patient)[1]
        scores = {
            metric.name: _score(metric, one, n_patients)
            for metric, one in zip(metrics[system.name], values, strict=True)
        }
        lengths = length_statistics(system.texts)
        shown.append(SystemScores(system.name, system.kind, scores, lengths, distinct_share(system.texts)))
        if advance:
            advance(number, len(systems), system.name)
    own = metrics[model.name]
    comparisons = tuple(
        Comparison(
            system.name,
            system.kind,
            unchanged_share(model.texts, system.texts),
            paired(own, metrics[system.name], by_patient, settings.n_resamples, settings.seed, MAIN_METRICS),
        )
        for system in others
    )
    if any(metric.name == "reg2025_bleu" and (metric.per_case() > 1).any() for metric in own):
        said.append(ABOVE_ONE)
    if not any(one.is_image_control for one in comparisons):
        missing["image dependence"] = (
            "no run of the model on other slides; `generate --control shuffled` or `zeroed` writes it: give it as "
            "--control shuffled=FILE or zeroed=FILE"
        )
    if not any("text-only" in system.name for system in others):
        missing["text-only language model"] = (
            "no run of a language model without slides; `generate --control text-only` writes it: give it as "
            "--control text-only=FILE"
        )
    return Study(
        len(pairs),
        patient_rows(by_patient)[1],
        join,
        settings,
        tuple(shown),
        comparisons,
        {metric.name: metric.signature for name in (model.name, *metrics) for metric in metrics[name]},
        missing,
        (*join.lines(), *said),
        worst_cases(pairs.written_by(model.texts), own, by_patient, settings.n_worst, vocabulary),
    )


def _metrics(
    pairs: Pairs,
    settings: Settings,
    tools: Tools,
    vocabulary: Vocabulary,
    truths: Sequence[Mapping[str, Any]] | None,
    train_texts: Sequence[str] | None,
) -> tuple[list[Metric], dict[str, str]]:
    metrics: list[Metric] = []
    absent: dict[str, str] = {}
    for preset in dict.fromkeys(("words", *settings.presets)):  # cases are ranked by words
        found, lacking = PRESETS[preset](pairs, tools)
        metrics += found
        absent |= lacking
    metrics += clinical_metrics(pairs, vocabulary)
    if truths is not None and is_complete(dict(zip(pairs.case_ids, truths, strict=True))):
        metrics += truth_metrics(pairs.predictions, truths)
    elif truths is not None:
        absent["truth"] = f"not every truth in the references has {', '.join(KEYS)}, the extent as a number"
    metrics += output_metrics(pairs, train_texts)
    if train_texts is None:
        absent["verbatim_in_train"] = "no training reports; name them with --train"
    return metrics, absent


def _score(metric: Metric, values: Array, n_patients: int) -> Score:
    value = metric.overall()
    if np.isnan(value):
        return Score(None, None, None, metric.undefined)
    within = interval(values, n_patients)
    return Score(value, within.low, within.high, within.reason)
