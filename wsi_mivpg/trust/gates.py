"""The trust gates of one model: what calibration found, kept in one file of the model's folder.

`assess` puts a report of a case before the gates; the shapes in which a report shows it are the reports room's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wsi_mivpg.captioner import CaseBags, SlideCaptioner
from wsi_mivpg.trust.confidence import Confidence
from wsi_mivpg.trust.consensus import agreement
from wsi_mivpg.trust.dependence import Scored, score, visual_prompt, zeroed_prompt
from wsi_mivpg.trust.distribution import TrainingCases, pooled
from wsi_mivpg.trust.fields import FieldConfidence

IMAGE_DEPENDENCE, DISTRIBUTION, AGREEMENT = "image dependence", "distribution", "agreement"
ALONE = ("mean log-probability", "least log-probability", "image dependence")
"""What a sentence's confidence is computed from; with samples, and from their agreement."""
WITH_SAMPLES = (*ALONE, "agreement")


@dataclass(frozen=True)
class Threshold:
    """Where a gate shuts: below `shut`; `usual` is the median of right reports."""

    usual: float
    shut: float


@dataclass(frozen=True, eq=False)
class TrustGates:
    """What `wsi-mivpg calibrate` found of a model.

    Attributes:
        training: what training cases look like.
        others: float16 (K, R, width): visual prompts of other slides.
        zeroed: float16 (R, width): that of zeros.
        thresholds: of each gate, by name.
        confidence: of a sentence from what is known without samples.
        confidence_with_samples: likewise with samples; None where calibration drew none.
        model_sha256: of the weights that it holds for.
        facts: how it was found, for people: numbers of cases, shares and errors.
        fields: of each schema that was calibrated, by its fingerprint.
    """

    training: TrainingCases
    others: Tensor
    zeroed: Tensor
    thresholds: Mapping[str, Threshold]
    confidence: Confidence
    confidence_with_samples: Confidence | None
    model_sha256: str
    facts: Mapping[str, str | int | float | None] = field(default_factory=dict)
    fields: Mapping[str, FieldConfidence] = field(default_factory=dict)


@dataclass(frozen=True)
class GateValue:
    """A gate's value for one report, and its threshold; None: it was not calibrated."""

    name: str
    value: float
    threshold: Threshold | None

    @property
    def passed(self) -> bool | None:
        """Whether the gate is open; None where nothing was calibrated."""
        return None if self.threshold is None else self.value >= self.threshold.shut

    @property
    def margin(self) -> float:
        """The value in units of the usual one's distance to the threshold, which lies at -1 and the usual at 0.

        NaN where nothing was calibrated.
        """
        if self.threshold is None:
            return float("nan")
        reach = max(self.threshold.usual - self.threshold.shut, 1e-6)
        return (self.value - self.threshold.usual) / reach


@dataclass(frozen=True, eq=False)
class Assessed:
    """A report before the gates.

    Attributes:
        gates: values of those that could be computed.
        confidence: of each sentence, 0..1; None where nothing was calibrated or a gate is shut: it holds for slides
            like those of the calibration alone.
        assessable: of each sentence: its confidence is not below the threshold.
        token_logprobs: float64 (T,): of each token of the report, natural logarithm.
    """

    gates: tuple[GateValue, ...]
    confidence: tuple[float | None, ...]
    assessable: tuple[bool, ...]
    token_logprobs: NDArray[np.float64]

    @property
    def supported(self) -> bool:
        """Whether no gate is shut."""
        return all(gate.passed is not False for gate in self.gates)


@dataclass(frozen=True, eq=False)
class Written:
    """A report to be assessed.

    Attributes:
        token_ids: T tokens.
        sentences: texts of its sentences.
        tokens: of each sentence, places in `token_ids`.
        prompt: what was asked; None: the model's own.
        samples: sentences of every other text that was drawn of the same case; None: none was drawn.
        agreement: mean similarity to them; None without.
    """

    token_ids: tuple[int, ...]
    sentences: tuple[str, ...]
    tokens: tuple[range, ...]
    prompt: str | None = None
    samples: Sequence[Sequence[str]] | None = None
    agreement: float | None = None


def assess(captioner: SlideCaptioner, gates: TrustGates | None, case: CaseBags, written: Written) -> Assessed:
    """Put a report before the gates: one batch of the language model, over its tokens.

    Without calibration its dependence on the image is measured against zeros alone, and nothing is decided.

    Raises:
        ModelError: the report has no token, or is too long for the language model.
    """
    visual = visual_prompt(captioner, case)
    if gates is None:
        width = int(case.instances.shape[1])
        scored = score(captioner, visual, zeroed_prompt(captioner, width), visual[None][:0], *_asked(written))
    else:
        scored = score(captioner, visual, gates.zeroed, gates.others, *_asked(written))
    values = values_of(scored, None if gates is None else gates.training, pooled(case), written.agreement)
    known = {} if gates is None else gates.thresholds
    found = tuple(GateValue(name, value, known.get(name)) for name, value in values.items())
    plain = (None,) * len(written.sentences), (True,) * len(written.sentences)
    if gates is None or any(gate.passed is False for gate in found):
        return Assessed(found, *plain, scored.own)
    fitted = gates.confidence
    sampled = written.samples is not None and gates.confidence_with_samples is not None
    if sampled and gates.confidence_with_samples is not None:
        fitted = gates.confidence_with_samples
    confidence = tuple(fitted.of(row) for row in sentence_features(scored, written, with_samples=sampled))
    return Assessed(found, confidence, tuple(one >= fitted.threshold for one in confidence), scored.own)


def values_of(
    scored: Scored, training: TrainingCases | None, bag: NDArray[np.float32], agreed: float | None
) -> dict[str, float]:
    """Return the value of each gate that can be computed, by name: the higher, the better."""
    values = {IMAGE_DEPENDENCE: scored.dependence()}
    if training is not None:
        values[DISTRIBUTION] = -float(training.mahalanobis(bag[None])[0])
    if agreed is not None:
        values[AGREEMENT] = agreed
    return values


def sentence_features(scored: Scored, written: Written, *, with_samples: bool) -> list[tuple[float, ...]]:
    """Return what each sentence's confidence is computed from; see `ALONE` and `WITH_SAMPLES`."""
    rows = []
    for sentence, tokens in zip(written.sentences, written.tokens, strict=True):
        places = tokens if len(tokens) else range(max(tokens.start - 1, 0), max(tokens.start, 1))
        logprobs = scored.own[list(places)]
        row: tuple[float, ...] = (float(logprobs.mean()), float(logprobs.min()), scored.dependence(places))
        rows.append((*row, agreement(sentence, written.samples or ())) if with_samples else row)
    return rows


def _asked(written: Written) -> tuple[tuple[int, ...], str | None]:
    return written.token_ids, written.prompt
