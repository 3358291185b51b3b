"""The text pass of ``wsi-mivpg report``: cases are opened, compared with what is done, and written about in batches.

Pages and evidence are the next pass, case by case.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_mivpg.atomic import canonical_hash, sha256_of
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaseBags, Generated, SlideCaptioner, forced_differences
from wsi_mivpg.captioner.generation import generation_settings
from wsi_mivpg.captioner.saving import find_model
from wsi_mivpg.cli.apart import apart
from wsi_mivpg.cli.case_evidence import ReadCase
from wsi_mivpg.cli.case_fields import write_fields
from wsi_mivpg.cli.case_inputs import CaseInput
from wsi_mivpg.cli.case_trust import Drawn, draw_texts, with_consensus
from wsi_mivpg.errors import BagError, WsiMivpgError
from wsi_mivpg.evidence import slides_of
from wsi_mivpg.extraction import SlideInput, SlideSettings
from wsi_mivpg.prompting import FieldSchema
from wsi_mivpg.reports import FieldValue, Report
from wsi_mivpg.trust import TrustGates

Fail = Callable[[str, object], None]


@dataclass(frozen=True)
class Asked:
    """What a run was asked for.

    Attributes:
        model: its name, as the user gave it.
        out: folder of the pages.
        slide_settings: how slides are opened and their tissue found.
        method: how tiles are weighed for each sentence; None for not at all.
        pages: whether a page is drawn of each case.
        prompt: in place of the model's own; None for that.
        seed: of models that sample.
        batch_size: cases written about at once.
        force: go on with bags that differ from those of the training.
        sections: headers that the prompt asks for.
        schema: fields to fill in place of a free text.
        samples: texts drawn of each case beside the one that is written anyway.
        trust: whether reports are put before the gates.
        gates: the model's; None where it was never calibrated.
    """

    model: str
    out: Path
    slide_settings: SlideSettings
    method: str | None
    pages: bool = True
    prompt: str | None = None
    seed: int = 0
    batch_size: int = 16
    force: bool = False
    sections: tuple[str, ...] = ()
    schema: FieldSchema | None = None
    samples: int = 0
    trust: bool = True
    gates: TrustGates | None = None


@dataclass(frozen=True, eq=False)
class OpenCase:
    """A case whose bags fit the model.

    Attributes:
        given: as the user named it.
        bags: of its slides, none of their features in memory.
        sha256s: of the bags' files.
        forced: how they differ from those of the training.
        settings_hash: of all that decides what is written; see `Report.settings_hash`.
        seconds: spent on it so far.
    """

    given: CaseInput
    bags: tuple[FeatureBag, ...]
    sha256s: tuple[str, ...]
    forced: tuple[str, ...]
    settings_hash: str
    seconds: float

    @property
    def slides(self) -> dict[str, SlideInput]:
        """Slide id -> slide, of those that are at hand."""
        pairs = zip(self.bags, self.given.slides, strict=True)
        return {bag.slide_id: one.slide for bag, one in pairs if one.slide is not None}


@dataclass(frozen=True, eq=False)
class CaseText:
    """What the model wrote about a case that it read, and its fields where a schema was filled."""

    case: OpenCase
    read: ReadCase
    drawn: Drawn
    fields: tuple[FieldValue, ...]
    seconds: float

    @property
    def generated(self) -> Generated:
        """The text that was chosen."""
        return self.drawn.chosen


def run_hash(captioner: SlideCaptioner, asked: Asked) -> str:
    """Return the hash of all that decides a report beside its bags: the same for all cases of a run.

    The captioner is asked the run's prompt already. Of the model's folder every JSON and safetensors file counts:
    weights, configuration, and calibration where it has one.
    """
    folder = find_model(asked.model)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors"))
    generation = generation_settings(captioner, {})
    decides: dict[str, Any] = {
        "schema": Report.model_fields["schema_version"].default,
        "model": {file.name: sha256_of(file) for file in files},
        "language_model": captioner.config.language_model_sha256,
        "prompt": captioner.config.prompt,
        "generation": generation,
        "seed": asked.seed if generation["do_sample"] or asked.samples else None,
        "evidence": asked.method,
        "fields": None if asked.schema is None else asked.schema.fingerprint,
        "samples": asked.samples,
        "trust": asked.trust,
    }
    return canonical_hash(decides)


def open_case(captioner: SlideCaptioner, given: CaseInput, asked: Asked, of_run: str, seconds: float = 0.0) -> OpenCase:
    """Open a case's bags and see that they fit the model and, together, make a case.

    Raises:
        BagError: a bag cannot be read, the case has no tissue, two bags are of one slide, or a bag does not state what
            the model asks for.
        ModelError: a bag was made otherwise than those of the training, and nobody insists.
    """
    started = time.perf_counter()
    bags = tuple(FeatureBag.open(one.bag) for one in given.slides)
    ids = [bag.slide_id for bag in bags]
    if double := next((bag for bag in bags if ids.count(bag.slide_id) > 1), None):
        raise BagError(f"case {given.case_id!r}: two of its bags are of slide {double.slide_id!r}; leave one out")
    forced: tuple[str, ...] = ()
    for bag in bags:
        if asked.force:
            forced += forced_differences(captioner.config, bag)
        else:
            captioner.check_bag(bag)
    if not any(map(len, bags)):
        raise BagError(f"{given.shown}: no tissue found, so there is nothing to report on")
    hashes = tuple(sha256_of(bag.path) for bag in bags)
    stains = [one.stain for one in given.slides]
    settings_hash = canonical_hash([of_run, list(hashes), stains])
    return OpenCase(given, bags, hashes, forced, settings_hash, seconds + time.perf_counter() - started)


def write_texts(captioner: SlideCaptioner, cases: Sequence[OpenCase], asked: Asked, fail: Fail) -> list[CaseText]:
    """Let the model read and write about cases together; what cannot be read or written about is told to `fail`."""
    started = time.perf_counter()
    read: dict[str, tuple[OpenCase, CaseBags]] = {}
    for case in cases:
        try:
            read[case.given.case_id] = case, captioner.read(case.given.case_id, case.bags)
        except WsiMivpgError as problem:
            fail(case.given.shown, problem)

    def fail_case(case_id: str, problem: object) -> None:
        fail(read[case_id][0].given.shown, problem)

    def work(some: Sequence[CaseBags]) -> list[tuple[Drawn, tuple[FieldValue, ...]]]:
        return _written(captioner, some, asked)

    together = [bags for _, bags in read.values()]
    written = apart(together, work, fail_case)
    each = (time.perf_counter() - started) / max(len(cases), 1)
    texts = []
    for drawn, fields in written:
        made = drawn.chosen
        case, bags = read[made.case_id]
        slides = slides_of(case.bags, None if bags.rows is None else bags.rows.numpy())
        told = ReadCase(bags, slides, made.text, made.token_ids, made.token_logprobs.tolist())
        texts.append(CaseText(case, told, drawn, fields, case.seconds + each))
    return texts


def _written(
    captioner: SlideCaptioner, cases: Sequence[CaseBags], asked: Asked
) -> list[tuple[Drawn, tuple[FieldValue, ...]]]:
    if asked.schema is not None:
        known = None if asked.gates is None else asked.gates.fields.get(asked.schema.fingerprint)
        filled = write_fields(captioner, cases, asked.schema, len(cases), known)
        return [(Drawn(one.generated), one.fields) for one in filled]
    drawn = draw_texts(captioner, cases, asked.samples, len(cases), asked.seed)
    return [(with_consensus(texts), ()) for texts in drawn]
