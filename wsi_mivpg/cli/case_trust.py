"""Puts the trust room's gates into a report: its gates, its sentences' confidence, alternatives and doubtful numbers.

Nothing is computed here; see `wsi_mivpg.trust`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wsi_mivpg.captioner import CaseBags, Generated, SlideCaptioner
from wsi_mivpg.errors import ModelError, TextsError
from wsi_mivpg.evidence import sentence_spans
from wsi_mivpg.reports import Consensus, FieldValue, Gate, Report, Sentence
from wsi_mivpg.trust import (
    SAMPLING,
    Assessed,
    GateValue,
    TrustGates,
    Written,
    alternatives,
    assess,
    choose,
    unverified,
)

NOT_CALIBRATED = (
    "The model's trust gates are not calibrated: whether its slides support this report is not known. Run "
    "`wsi-mivpg calibrate`."
)
NOT_SUPPORTED = "This report is not supported by its slides: "
FIELD_CONFIDENCE = 0.9
"""A field of a structured report vouches for the numbers that it states from this confidence on, or from this
probability where its confidence was not calibrated."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was written of a case, the text that agrees most with the others, and these others, sample by sample."""

    chosen: Generated
    consensus: Consensus | None = None
    others: tuple[Generated, ...] = ()


def draw_texts(
    captioner: SlideCaptioner, cases: Sequence[CaseBags], samples: int, batch_size: int, seed: int
) -> list[list[Generated]]:
    """Write about each case greedily, and then `samples` times by sampling; per case, the greedy text first."""
    greedy = captioner.generate(cases, batch_size=batch_size, seed=seed)
    if not samples:
        return [[one] for one in greedy]
    more = captioner.generate(cases, samples=samples, batch_size=batch_size, seed=seed, **SAMPLING)
    parts = [more[start : start + samples] for start in range(0, len(more), samples)]
    return [
        [first, *(replace(one, sample=one.sample + 1) for one in part)]
        for first, part in zip(greedy, parts, strict=True)
    ]


def with_consensus(texts: Sequence[Generated]) -> Drawn:
    """Choose among the texts of a case the one that agrees most with the others (minimum Bayes risk)."""
    if len(texts) < 2:
        return Drawn(texts[0])
    chosen, agreed = choose([one.text for one in texts])
    others = tuple(one for place, one in enumerate(texts) if place != chosen)
    consensus = Consensus(samples=tuple(one.text for one in texts), chosen=chosen, agreement=agreed)
    return Drawn(texts[chosen], consensus, others)


def with_trust(
    report: Report, captioner: SlideCaptioner, bags: CaseBags, drawn: Drawn, gates: TrustGates | None
) -> Report:
    """Return a report with its gates, and its sentences with confidence, alternatives and doubtful numbers.

    One batch of the language model scores the report. A report that has no sentences yet (no evidence was asked for)
    gets them here; a report without text has no gates. Confidence is calibrated on what the model words itself: the
    text of a structured report is its template's, and its fields have confidence of their own.

    Args:
        report: with its text, and its fields if it is a structured one.
        captioner: in evaluation mode.
        bags: the case as the model read it.
        drawn: what was written; `with_consensus` of one text or several.
        gates: the model's; None if it was never calibrated.

    Raises:
        ModelError: the report is too long for the language model.
    """
    if not report.text.strip():
        return report
    is_own = report.text == drawn.chosen.text  # a structured report's text is its template's
    token_ids = drawn.chosen.token_ids if is_own else tuple(captioner.encode_report(report.text))
    try:
        cut = sentence_spans(captioner.tokenizer, token_ids, report.text)
    except TextsError as problem:  # a template's text that the tokenizer cannot write
        raise ModelError(f"case {report.case_id!r}: the report cannot be scored: {problem}") from problem
    samples = [[text for text, _ in sentences_of(captioner, one.token_ids, one.text)] for one in drawn.others]
    written = Written(
        token_ids=token_ids,
        sentences=tuple(span.text for span in cut),
        tokens=tuple(span.tokens for span in cut),
        prompt=report.prompt,
        samples=samples or None,
        agreement=None if drawn.consensus is None else drawn.consensus.agreement,
    )
    assessed = assess(captioner, gates, bags, written)
    plain = [
        Sentence(
            text=span.text,
            start=span.start,
            end=span.end,
            logprob=float(assessed.token_logprobs[list(span.tokens)].sum()),
        )
        for span in cut
    ]
    sentences = report.sentences or tuple(plain)
    confidences, assessable = assessed.confidence, assessed.assessable
    fields = report.fields
    if fields:
        confidences, assessable = (None,) * len(cut), (True,) * len(cut)
    if not assessed.supported:  # what was calibrated holds for slides like those of the calibration alone
        fields = tuple(field.model_copy(update={"confidence": None}) for field in fields)
    doubtful = unverified(report.text, _vouched(fields))
    return report.model_copy(
        update={
            "fields": fields,
            "gates": tuple(map(_gate, assessed.gates)),
            "consensus": drawn.consensus,
            "sentences": tuple(
                sentence.model_copy(
                    update={
                        "confidence": confidence,
                        "assessable": shown,
                        "alternatives": alternatives(sentence.text, samples),
                        "unverified_numbers": tuple(
                            (start, end) for start, end in doubtful if sentence.start <= start and end <= sentence.end
                        ),
                    }
                )
                for sentence, confidence, shown in zip(sentences, confidences, assessable, strict=True)
            ),
            "warnings": (*report.warnings, *_warnings(assessed, gates)),
        }
    )


def sentences_of(captioner: SlideCaptioner, token_ids: Sequence[int], text: str) -> list[tuple[str, range]]:
    """Return a text's sentences and the places of their tokens."""
    return [(span.text, span.tokens) for span in sentence_spans(captioner.tokenizer, token_ids, text)]


def _vouched(fields: Sequence[FieldValue]) -> list[str | int | float]:
    return [
        field.value
        for field in fields
        if field.assessable and field.certainty >= FIELD_CONFIDENCE and field.value is not None
    ]


def _warnings(assessed: Assessed, gates: TrustGates | None) -> list[str]:
    if gates is None:
        return [NOT_CALIBRATED]
    shut = [_explained(gate) for gate in assessed.gates if gate.passed is False]
    return [NOT_SUPPORTED + " ".join(shut)] if shut else []


def _gate(gate: GateValue) -> Gate:
    return Gate(
        name=gate.name,
        value=gate.value,
        threshold=None if gate.threshold is None else gate.threshold.shut,
        passed=gate.passed,
        explanation=_explained(gate),
    )


def _explained(gate: GateValue) -> str:
    """One sentence with the number; distances are told as distances."""
    value, threshold = gate.value, gate.threshold
    if gate.name == "image dependence":
        said = f"The text is {value:+.1f} nats likelier after its own slides than after others or none"
        held = "" if threshold is None else f"; right reports are from {threshold.shut:+.1f} on"
    elif gate.name == "distribution":
        said = f"The slides lie {-value:.2f} from the training slides"
        held = "" if threshold is None else f"; up to {-threshold.shut:.2f} is usual"
    else:
        said = f"The texts drawn of this case agree by {value:.0%}"
        held = "" if threshold is None else f"; right reports do by {threshold.shut:.0%} or more"
    return f"{said}{held}." if threshold is not None else f"{said}; what is usual was not calibrated."
