"""Calibrates a model's gates: thresholds that right reports of validation cases pass, and sentences' confidence.

Cases and a model go in, `TrustGates` come out; files are `store`'s job.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor

from wsi_mivpg.captioner import CaseBags, Generated, SlideCaptioner
from wsi_mivpg.errors import CohortError
from wsi_mivpg.evaluation.clinical import diagnosis_is_right, is_right
from wsi_mivpg.trust.confidence import MOST_REFUSED, fit_with_threshold
from wsi_mivpg.trust.consensus import choose
from wsi_mivpg.trust.dependence import score, visual_prompt, zeroed_prompt
from wsi_mivpg.trust.distribution import TrainingCases, fit_training_cases, pooled
from wsi_mivpg.trust.gates import ALONE, WITH_SAMPLES, Threshold, TrustGates, Written, sentence_features, values_of

OTHERS = 6
"""Slides whose visual prompts stand for what else a report could have been written about."""
SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.95}
"""How further texts of a case are drawn."""

Sentences = Callable[[Generated], list[tuple[str, range]]]
"""A written text -> its sentences and their places among its tokens."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What a report is held against: pooled training cases, other slides' visual prompts, and that of zeros."""

    training: TrainingCases
    n_training: int
    others: Tensor
    zeroed: Tensor


@dataclass(frozen=True, eq=False)
class Observed:
    """What calibration saw of one case.

    Attributes:
        case_id: the case.
        text: what the model wrote.
        values: of the gates, by name.
        right: the report's diagnosis is right.
        features: (S, F) of its sentences, `ALONE`, and with samples `WITH_SAMPLES`.
        sentences_right: of each sentence.
    """

    case_id: str
    text: str
    values: Mapping[str, float]
    right: bool
    features: NDArray[np.float64]
    sentences_right: tuple[bool, ...]


def make_reference(
    captioner: SlideCaptioner, rows: Sequence[NDArray[np.float32]], read: Callable[[int], CaseBags], seed: int = 0
) -> Reference:
    """Fit the training cases, and take the visual prompts of those nearest to the middles of their clusters.

    Args:
        captioner: in evaluation mode.
        rows: of each training case, `pooled`.
        read: opens the training case of a place in `rows`.
        seed: of the clusters.

    Raises:
        CohortError: there are too few training cases.
    """
    training = fit_training_cases(rows)
    scores = training.along(np.stack(rows))
    middles, _ = kmeans2(scores, min(OTHERS, len(scores)), minit="++", rng=np.random.default_rng(seed))
    nearest = {int(((scores - middle) ** 2).sum(axis=1).argmin()) for middle in middles if np.isfinite(middle).all()}
    others = torch.stack([visual_prompt(captioner, read(place)) for place in sorted(nearest)])
    # As they are stored, so that thresholds and later values rest on the same numbers.
    zeroed = zeroed_prompt(captioner, (len(rows[0]) - 1) // 2)
    return Reference(training, len(rows), others.half().cpu(), zeroed.half().cpu())


def reference_of(gates: TrustGates) -> Reference:
    """Return what a model's gates hold of its training cases, for calibrating on other cases of its making."""
    n_training = int(gates.facts["training_cases"] or 0)
    return Reference(gates.training, n_training, gates.others, gates.zeroed)


def observe(
    captioner: SlideCaptioner,
    reference: Reference,
    case: CaseBags,
    references: Sequence[str],
    drawn: Sequence[Generated],
    sentences: Sentences,
) -> Observed:
    """Hold what the model wrote of a case against its reference reports, and compute what the gates will see.

    Args:
        captioner: in evaluation mode.
        reference: see `Reference`.
        case: its instances.
        references: equally right wordings of its report.
        drawn: the greedy text first, then samples if any.
        sentences: cuts a text.
    """
    chosen, agreed = choose([one.text for one in drawn])
    made, cut = drawn[chosen], sentences(drawn[chosen])
    samples = [[text for text, _ in sentences(one)] for place, one in enumerate(drawn) if place != chosen]
    written = Written(
        token_ids=made.token_ids,
        sentences=tuple(text for text, _ in cut),
        tokens=tuple(tokens for _, tokens in cut),
        samples=samples or None,
        agreement=agreed if samples else None,
    )
    visual = visual_prompt(captioner, case)
    scored = score(captioner, visual, reference.zeroed, reference.others, made.token_ids)
    rows = sentence_features(scored, written, with_samples=bool(samples))
    names = WITH_SAMPLES if samples else ALONE
    return Observed(
        case_id=case.case_id,
        text=made.text,
        values=values_of(scored, reference.training, pooled(case), written.agreement),
        right=diagnosis_is_right(made.text, references),
        features=np.array(rows, np.float64).reshape(-1, len(names)),
        sentences_right=tuple(is_right(text, references) for text in written.sentences),
    )


def calibrated(observed: Sequence[Observed], reference: Reference, model_sha256: str) -> TrustGates:
    """Choose thresholds that at most 5 % of right reports, and of right sentences, fall below, and fit confidence.

    Raises:
        CohortError: no report of any case is right, so that no threshold can be chosen.
    """
    right = [one for one in observed if one.right]
    if not right:
        raise CohortError(
            f"no report of {len(observed)} calibration cases has the diagnosis of its reference, so there is nothing "
            "to calibrate on; train the model further, or give the split that it was meant for"
        )
    names = list(right[0].values)
    values = {name: np.array([one.values[name] for one in right]) for name in names}
    thresholds = joint_thresholds(values)
    refused = np.mean([any(one.values[name] < thresholds[name].shut for name in names) for one in right])
    rows = np.concatenate([one.features for one in observed])
    labels = np.array([label for one in observed for label in one.sentences_right], bool)
    cases = [one.case_id for one in observed for _ in one.sentences_right]
    with_samples = rows.shape[1] == len(WITH_SAMPLES)
    alone, error = fit_with_threshold(ALONE, rows[:, : len(ALONE)], labels, cases)
    sampled, sampled_error = fit_with_threshold(WITH_SAMPLES, rows, labels, cases) if with_samples else (None, None)
    facts = {
        "training_cases": reference.n_training,
        "calibration_cases": len(observed),
        "right_reports": len(right),
        "right_reports_refused": round(float(refused), 4),
        "sentences": len(labels),
        "right_sentences": int(labels.sum()),
        "calibration_error": round(error, 4),
        "calibration_error_with_samples": None if sampled_error is None else round(sampled_error, 4),
    }
    return TrustGates(
        reference.training, reference.others, reference.zeroed, thresholds, alone, sampled, model_sha256, facts
    )


def joint_thresholds(
    values: Mapping[str, NDArray[np.float64]], most_refused: float = MOST_REFUSED
) -> dict[str, Threshold]:
    """Return the highest thresholds, at one rank for all gates, that together refuse few enough right reports.

    Args:
        values: of each gate, float64 (n,), for the same n right reports.
        most_refused: share that may fall below any; counted as if one more had, since the next reports are others.
    """
    n = len(next(iter(values.values())))
    ranks = np.min([np.searchsorted(np.sort(one), one) for one in values.values()], axis=0)
    allowed = most_refused * (n + 1)
    # The threshold is the value of a rank: what lies strictly below it is refused.
    rank = max((rank for rank in range(n) if rank == 0 or (ranks < rank).sum() + 1 <= allowed), default=0)
    return {name: Threshold(float(np.median(one)), float(np.sort(one)[rank])) for name, one in values.items()}
