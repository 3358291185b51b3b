"""Which cases a training may use: they have bags, the bags were made alike, and no split leaks into another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsi_mivpg.bags import CONTRACT, FeatureBag, agree, require_contract
from wsi_mivpg.captioner import tissue_settings
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.checks import leaks_between_splits
from wsi_mivpg.cohorts.findings import Finding
from wsi_mivpg.cohorts.report_text import prepare_report
from wsi_mivpg.errors import CohortError
from wsi_mivpg.training.recipe import Recipe
from wsi_mivpg.training.settings import SelectionSettings

_SHOWN = 5


@dataclass(frozen=True)
class Cohort:
    """The cases of a training.

    Attributes:
        train, val: cases of these splits, reports prepared.
        others: how many cases of each other split were left alone.
        bag: one of the bags, for what all have in common.
        tissue: how their tissue was found, as `CaptionerConfig.tissue`; None where it differs or is not stated.
        leaks: what the recipe lets pass.
    """

    train: list[Case]
    val: list[Case]
    others: dict[str, int]
    bag: FeatureBag
    leaks: list[Finding]
    tissue: dict[str, Any] | None = None


def usable(recipe: Recipe, cases: Sequence[Case]) -> Cohort:
    """Choose and check the cases of a training.

    Raises:
        CohortError: no training case, a case without a bag, bags made differently, a split that leaks into another,
            or a choice by validation cases where there are none.
        BagError: a bag cannot be read, or does not state how it was made.
    """
    train = [case for case in cases if case.split == "train"]
    val = [case for case in cases if case.split == "val"]
    if not train:
        raise CohortError(
            f"no case of {len(cases)} has split 'train'; "
            + ("split the manifest with `wsi-mivpg cohorts split`" if cases else "the manifest is empty")
        )
    if recipe.selection != SelectionSettings() and not val:
        raise CohortError(
            f"the recipe chooses the model by {recipe.selection.metric} on split 'val', but no case has it; "
            "make one with `wsi-mivpg cohorts split --val 0.1`, or remove the section selection"
        )
    if bare := [case.case_id for case in (*train, *val) if not case.bag_paths]:
        raise CohortError(f"no bag for {listed(bare)}; extract their slides, or leave them out of the manifest")
    bag = made_alike([*train, *val])
    leaks = leaks_between_splits(cases)
    if leaks and recipe.data.on_leak == "refuse":
        raise CohortError(
            f"splits leak into each other: {'; '.join(leak.message for leak in leaks[:_SHOWN])}"
            f"{f'; and {len(leaks) - _SHOWN} more' if len(leaks) > _SHOWN else ''}; see `wsi-mivpg cohorts check`, "
            "split again by patient with `wsi-mivpg cohorts split`, or set data.on_leak=warn"
        )
    others: dict[str, int] = {}
    for case in cases:
        if case.split not in ("train", "val"):
            others[case.split or "none"] = others.get(case.split or "none", 0) + 1
    tissue = common_tissue([*train, *val])
    return Cohort(prepared(recipe, train), prepared(recipe, val), others, bag, leaks, tissue)


def prepared(recipe: Recipe, cases: Sequence[Case]) -> list[Case]:
    """Return the cases with their reports as `data.reports` asks for them; an empty one is refused when it is read.

    Raises:
        CohortError: a section is not known.
    """
    asked = recipe.data.reports
    if asked is None:
        return list(cases)
    return [
        replace(
            case,
            reports=tuple(prepare_report(text, asked.drop, asked.letter_case).text for text in case.reports),
        )
        for case in cases
    ]


def made_alike(cases: Sequence[Case]) -> FeatureBag:
    """Return the first bag after checking that all bags were made alike.

    Raises:
        CohortError: two bags differ in encoder, weights, width, resolution or tile size.
        BagError: a bag cannot be read, or does not state its encoder, resolution or tile size.
    """
    bags = [FeatureBag.open(path) for case in cases for path in case.bag_paths]
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


def common_tissue(cases: Sequence[Case]) -> dict[str, Any] | None:
    """Return how the tissue of all bags was found; None where that differs or some bag does not say."""
    settings = [tissue_settings(FeatureBag.open(path)) for case in cases for path in case.bag_paths]
    return settings[0] if all(one == settings[0] for one in settings) else None


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + rest
