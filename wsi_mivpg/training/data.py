"""Cases for training, read from disk when they are asked for, and batches of them.

What is drawn of a case depends on seed, epoch and index alone, not on workers or on what came before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.captioner.inputs import CaseBags, draw, pack, read_case
from wsi_mivpg.captioner.sequences import pad_labels
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError


@dataclass(frozen=True)
class Example:
    """A case ready for training: its bags, opened but not read, and the token ids of its report's wordings."""

    case_id: str
    bags: tuple[FeatureBag, ...]
    reports: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Sampling:
    """What a step may see of a case.

    Attributes:
        seed: of all draws.
        max_instances: most instances of a case; None for all.
        instance_dropout: greatest share (0..1) left out besides, drawn uniformly from 0 to this.
    """

    seed: int
    max_instances: int | None = None
    instance_dropout: float = 0.0


class Item(TypedDict):
    """One case of a batch."""

    case: CaseBags
    report: tuple[int, ...]


class CaseDataset(Dataset[Item]):
    """Cases that are read when they are indexed; with a `sampling` a part of each, else all of it and the first report.

    `epoch` decides the draws; `EpochOfDraws` sets it before the epoch's first batch.
    """

    def __init__(self, examples: Sequence[Example], sampling: Sampling | None = None) -> None:
        self.examples = list(examples)
        self.sampling = sampling
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.examples)

    def case(self, index: int) -> CaseBags:
        """Return a case's instances, whole; none of them need be in memory."""
        example = self.examples[index]
        return read_case(example.case_id, example.bags)

    def __getitem__(self, index: int) -> Item:
        example, case = self.examples[index], self.case(index)
        if self.sampling is None:
            return {"case": case, "report": example.reports[0]}
        rng = np.random.default_rng((self.sampling.seed, self.epoch, index))
        report = example.reports[rng.integers(len(example.reports))]
        count = sum(case.slide_sizes)
        kept = max(1, round(count * (1 - rng.uniform(0, self.sampling.instance_dropout))))
        return {"case": draw(case, min(kept, self.sampling.max_instances or kept), rng), "report": report}


class EpochOfDraws(TrainerCallback):
    """Tells the dataset which epoch it is: accelerate does so only for datasets without a sampler of their own."""

    def __init__(self, dataset: CaseDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """`state.epoch` is a float: whole epochs, and a fraction where a run was resumed within one."""
        self.dataset.epoch = int((state.epoch or 0.0) + 1e-6)


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Pack cases: labels int64 (B, T), -100 after each report's end, what `pack` returns, and ``case_ids``."""
    cases = [item["case"] for item in items]
    # Labels first: the Trainer takes the length of the first tensor for the batch size.
    labels = pad_labels([item["report"] for item in items])
    return {"labels": labels, **pack(cases), "case_ids": [case.case_id for case in cases]}


def load_examples(cases: Sequence[Case], captioner: SlideCaptioner, max_report_tokens: int) -> list[Example]:
    """Open all bags and tokenise all reports; features are not read.

    Raises:
        CohortError: a case has no bag, no tile or no report, or a report has no token or too many.
        BagError: a bag cannot be read.
        ModelError: a bag does not fit the model, or the longest report is beyond the language model's positions.
    """
    examples = [_example(case, captioner, max_report_tokens) for case in cases]
    if examples:  # now, not when the longest report's turn comes
        longest = max(len(report) for example in examples for report in example.reports)
        captioner.check_length(len(captioner.prompt_ids), longest)
    return examples


def _example(case: Case, captioner: SlideCaptioner, limit: int) -> Example:
    bags = tuple(FeatureBag.open(path) for path in case.bag_paths)
    for bag in bags:
        captioner.check_bag(bag)
    if not sum(len(bag) for bag in bags):
        raise CohortError(f"case {case.case_id!r} has no tile; remove it from the manifest")
    if not case.reports:
        raise CohortError(f"case {case.case_id!r} has no report; training and validation cases need one")
    reports = []
    for text in case.reports:
        tokens = captioner.encode_report(text)
        if len(tokens) < 2:  # the end token alone
            raise CohortError(f"case {case.case_id!r}: its report {text!r} has no token; leave the case out")
        if len(tokens) > limit:
            raise CohortError(
                f"case {case.case_id!r}: its report has {len(tokens)} tokens, but model.max_report_tokens is {limit}; "
                f"set it to {len(tokens)} or more, or shorten the report (`wsi-mivpg cohorts prepare` drops sections)"
            )
        reports.append(tuple(tokens))
    return Example(case.case_id, bags, tuple(reports))
