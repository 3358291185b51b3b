"""From what a user names for ``wsi-mivpg report`` to cases: their slides, their bags, and which bags are still missing.

Names and headers only: no slide is opened and no feature read.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.cli.inputs import COHORT_SUFFIXES, Inputs, collect
from wsi_mivpg.cohorts.case import Case, read_manifest
from wsi_mivpg.errors import CohortError, WsiMivpgError
from wsi_mivpg.extraction import SlideInput, slide_input, unique_ids

_STAIN_COLUMNS = ("stain", "staining")
_OF_SLIDES = {"slide_id", "path"}


@dataclass(frozen=True)
class CaseSlide:
    """One slide of a case.

    Attributes:
        bag: the file of its features.
        slide: where it is; None where it is not at hand, so that it has no picture.
        is_missing: the bag is still to be made.
        stain: as a manifest names it.
    """

    bag: Path
    slide: SlideInput | None = None
    is_missing: bool = False
    stain: str | None = None


@dataclass(frozen=True)
class CaseInput:
    """What one report is written about."""

    case_id: str
    slides: tuple[CaseSlide, ...]

    @property
    def shown(self) -> str:
        """What messages call it: its slides, or else its bags, and its id where that is not the name of one of them."""
        return self.files if self.is_named_by_its_file else f"case {self.case_id}: {self.files}"

    @property
    def files(self) -> str:
        """Its slides, or else its bags."""
        return ", ".join(str(one.bag) if one.slide is None else one.slide.shown for one in self.slides)

    @property
    def is_named_by_its_file(self) -> bool:
        """Whether its only slide, or bag, has its name."""
        names = {one.bag.stem if one.slide is None else one.slide.slide_id for one in self.slides}
        return names == {self.case_id}

    @property
    def missing(self) -> tuple[SlideInput, ...]:
        """The slides whose bag is still to be made."""
        return tuple(one.slide for one in self.slides if one.is_missing and one.slide is not None)


def find_cases(given: Sequence[str], bags: Path, split: str | None = None) -> tuple[list[CaseInput], Inputs]:
    """Return the cases of all inputs, in order, and what failed.

    Slides and bags that name a case are one case with the others that name it; else each is its own.

    Args:
        given: slides, bags, folders of them, lists of slides, addresses, and manifests of cases.
        bags: folder of the bags that are still to be made.
        split: the cases of this split only; of manifests.

    Raises:
        SlideError: two slides have one name.
        CohortError: two cases have one name, or no case is of the split.
    """
    manifests = [one for one in given if _is_manifest(Path(one))]
    found = collect([one for one in given if one not in manifests], bags_too=True)
    cases = _grouped(found, bags)
    for manifest in manifests:
        try:
            cases += _of_manifest(Path(manifest), bags, split, found)
        except WsiMivpgError as problem:
            found.fail(manifest, problem)
    seen: dict[str, CaseInput] = {}
    for case in cases:
        other = seen.setdefault(case.case_id, case)
        if other is not case:
            raise CohortError(
                f"two cases have the name {case.case_id!r}, of {other.files} and of {case.files}; name one of them, "
                "or give both in a manifest with one id"
            )
    unique_ids(replace(slide, case_id="") for case in cases for slide in case.missing)
    return cases, found


def _is_manifest(path: Path) -> bool:
    """Return whether a file lists cases; a CSV with the columns slide_id and path lists slides."""
    if path.suffix in COHORT_SUFFIXES:
        return path.is_file()
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return not set(next(csv.reader(stream), [])) >= _OF_SLIDES
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # who reads it as a list of slides says what is wrong


def _grouped(found: Inputs, bags: Path) -> list[CaseInput]:
    groups: dict[str, list[CaseSlide]] = {}
    for path in found.bags:
        try:
            bag = FeatureBag.open(path)
        except WsiMivpgError as problem:
            found.fail(str(path), problem)
            continue
        case_id = bag.provenance.case_id if bag.provenance else ""
        groups.setdefault(case_id or bag.slide_id, []).append(CaseSlide(path))
    for slide in found.slides:
        made = CaseSlide(bags / f"{slide.slide_id}.h5", slide, is_missing=True)
        groups.setdefault(slide.case_id or slide.slide_id, []).append(made)
    return [CaseInput(case_id, tuple(slides)) for case_id, slides in groups.items()]


def _of_manifest(path: Path, bags: Path, split: str | None, found: Inputs) -> list[CaseInput]:
    wanted = [case for case in read_manifest(path) if split in (None, case.split)]
    if not wanted:
        raise CohortError(f"{path}: no case of split {split!r}; `wsi-mivpg cohorts split` makes splits")
    cases = []
    for case in wanted:
        try:
            cases.append(CaseInput(case.case_id, _slides(case, bags)))
        except WsiMivpgError as problem:
            found.fail(case.case_id, problem)
    return cases


def _slides(case: Case, bags: Path) -> tuple[CaseSlide, ...]:
    """Return a case's slides with the bags that it names for them; bags without a slide come last."""
    slides = [replace(slide_input(path), case_id=case.case_id) for path in case.slide_paths]
    named = {path.stem: path for path in case.bag_paths}
    bag_of = {slide.slide_id: named.pop(slide.slide_id) for slide in slides if slide.slide_id in named}
    rest = [slide.slide_id for slide in slides if slide.slide_id not in bag_of]
    if len(rest) == len(named):
        bag_of |= dict(zip(rest, named.values(), strict=True))
        named = {}
    elif rest and named:
        raise CohortError(
            f"case {case.case_id!r}: which slide has the bag {next(iter(named.values()))}? name its bags as its slides "
            "are named, or one bag for each slide"
        )
    if not slides and not named:
        raise CohortError(
            f"case {case.case_id!r} names neither a slide nor a bag; pictures become bags by `wsi-mivpg extract "
            "--patch-tokens`"
        )
    paired: list[tuple[Path | None, SlideInput | None]] = [(bag_of.get(one.slide_id), one) for one in slides]
    paired += [(bag, None) for bag in named.values()]
    stains = _stains(case, len(paired))
    return tuple(_case_slide(bag, slide, bags, stain) for (bag, slide), stain in zip(paired, stains, strict=True))


def _case_slide(bag: Path | None, slide: SlideInput | None, bags: Path, stain: str | None) -> CaseSlide:
    if slide is None:
        return CaseSlide(bag or bags, None, False, stain)
    if bag is not None and bag.is_file():
        at_hand = isinstance(slide.source, str) or slide.source.exists()
        return CaseSlide(bag, slide if at_hand else None, False, stain)
    return CaseSlide(bags / f"{slide.slide_id}.h5", slide, True, stain)


def _stains(case: Case, count: int) -> list[str | None]:
    """Return what a column `stain` says of each slide of a case: one for all, or as many as slides, with ; between."""
    said = next((text for name, text in case.attributes.items() if name.strip().lower() in _STAIN_COLUMNS), "")
    stains = [one.strip() or None for one in said.split(";")]
    if len(stains) == 1:
        return stains * count
    if len(stains) != count:
        raise CohortError(
            f"case {case.case_id!r} has {count} slides and {len(stains)} stains, {said!r}; give one for each, or one "
            "for all"
        )
    return stains
