"""Cases in memory and packed batches of them. It draws reports and drops instances; it knows no optimiser."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsi_mivpg.bags import CONTRACT, FeatureBag, agree, require_contract
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.captioner.sequences import pad_labels
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.errors import CohortError


@dataclass(frozen=True)
class Example:
    """A case ready for training: features float16 (M, D) of all its slides, and its reports' token ids."""

    case_id: str
    features: Tensor
    reports: tuple[tuple[int, ...], ...]


class CaseDataset(Dataset[Example]):
    """All cases of a training, held in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def made_alike(cases: Sequence[Case]) -> FeatureBag:
    """Return the first bag after checking that all bags were made alike.

    Raises:
        CohortError: there is no bag, or two bags differ in encoder, weights, width, resolution or tile size.
        BagError: a bag cannot be read, or does not state its encoder, resolution or tile size.
    """
    bags = [FeatureBag.open(path) for case in cases for path in case.bag_paths]
    if not bags:
        raise CohortError("no training case has a bag; extract the slides first")
    first = bags[0]
    for other in bags:
        require_contract(other, ("encoder", "target_mpp", "tile_px"))
        for name in CONTRACT:
            one, two = getattr(first, name), getattr(other, name)
            if not agree(one, two):
                raise CohortError(
                    f"bags of slides {first.slide_id!r} and {other.slide_id!r} differ in {name}: {one!r} and {two!r}; "
                    f"extract all slides alike"
                )
    return first


def load_examples(cases: Sequence[Case], captioner: SlideCaptioner) -> list[Example]:
    """Read all bags into memory and tokenise all reports.

    Raises:
        CohortError: a case has no tile or no report.
        BagError: a bag cannot be read.
        ModelError: a bag does not fit the model.
    """
    examples = []
    for case in cases:
        bags = [FeatureBag.open(path) for path in case.bag_paths]
        for bag in bags:
            captioner.check_bag(bag)
        if not sum(len(bag) for bag in bags):
            raise CohortError(f"case {case.case_id!r} has no tile; remove it from the manifest")
        if not case.reports:
            raise CohortError(f"case {case.case_id!r} has no report; training cases need at least one")
        features = torch.from_numpy(np.concatenate([bag.features.astype(np.float16, copy=False) for bag in bags]))
        reports = tuple(tuple(captioner.encode_report(text)) for text in case.reports)
        examples.append(Example(case.case_id, features, reports))
    return examples


class Collator:
    """Packs examples: draws one report each and leaves a random share of the instances out.

    Draws depend on the seed and on how many batches came before, so that `skip` makes a resumed training equal.
    """

    def __init__(self, seed: int, instance_dropout: float) -> None:
        self.seed = seed
        self.instance_dropout = instance_dropout
        self.batches_made = 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return instances float32 (M_total, D), slide_sizes (each case as one) and labels int64 (B, T)."""
        rng = np.random.default_rng((self.seed, self.batches_made))
        self.batches_made += 1
        labels = [example.reports[rng.integers(len(example.reports))] for example in examples]
        bags = [self._drop(example.features, rng) for example in examples]
        return {
            "instances": torch.cat(bags).float(),
            "slide_sizes": [[len(bag)] for bag in bags],
            "labels": pad_labels(labels),
        }

    def _drop(self, features: Tensor, rng: np.random.Generator) -> Tensor:
        count = len(features)
        kept = max(1, round(count * (1 - rng.uniform(0, self.instance_dropout))))
        return features[torch.from_numpy(np.sort(rng.permutation(count)[:kept]))]
