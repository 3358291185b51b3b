"""Cases whose bags are there: of files and folders of bags, and of manifests; read as the model takes them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wsi_mivpg.cli.inputs import BAG_SUFFIX
from wsi_mivpg.cohorts.case import Case, read_manifest
from wsi_mivpg.errors import BagError, CohortError, WsiMivpgError

if TYPE_CHECKING:
    from wsi_mivpg.captioner import CaseBags, SlideCaptioner

MANIFESTS = (".jsonl", ".csv", ".parquet")
Made = TypeVar("Made")
Fail = Callable[[str, object], None]


def find_cases(inputs: Sequence[Path], split: str | None, fail: Fail) -> list[Case]:
    """Return the cases of manifests, and each bag of a file or folder as a case of its own; what is wrong is noted.

    Raises:
        CohortError: two cases have the same id.
    """
    from wsi_mivpg.bags import FeatureBag

    cases: list[Case] = []
    for path in inputs:
        try:
            if path.suffix.lower() in MANIFESTS:
                cases += [case for case in read_manifest(path) if split in (None, case.split)]
                continue
            bags = sorted(path.rglob(f"*{BAG_SUFFIX}")) if path.is_dir() else [path]
            if not bags:
                raise BagError(f"{path} holds no bag; make them with `wsi-mivpg extract`")
        except WsiMivpgError as problem:
            fail(str(path), problem)
            continue
        for bag in bags:
            try:
                cases.append(Case(FeatureBag.open(bag).slide_id, (), (bag,), (), None))
            except WsiMivpgError as problem:
                fail(str(bag), problem)
    ids = [case.case_id for case in cases]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise CohortError(f"two cases are called {twice!r}; give each once, or put their bags into a manifest")
    return cases


def read_bags(captioner: "SlideCaptioner", case: Case) -> "CaseBags":
    """Open a case's bags and check them against the model.

    Raises:
        CohortError: the case has no bag.
        BagError: a bag cannot be read.
        ModelError: a bag was made with other settings than the model's.
    """
    from wsi_mivpg.bags import FeatureBag

    if not case.bag_paths:
        raise CohortError(f"case {case.case_id!r} has no bag; extract its slides, or import the cohort with --bags")
    bags = [FeatureBag.open(path) for path in case.bag_paths]
    for bag in bags:
        captioner.check_bag(bag)
    return captioner.read(case.case_id, bags)


def in_batches(
    captioner: "SlideCaptioner",
    cases: Sequence[Case],
    batch_size: int,
    work: "Callable[[Sequence[CaseBags]], list[Made]]",
    fail: Fail,
) -> Iterator[tuple[int, list[Made]]]:
    """Read cases and do `work` on them, `batch_size` at a time; where one of them cannot be done, on each alone.

    Yields:
        how many cases were looked at, and what became of the last of them.
    """
    from wsi_mivpg.cli.apart import apart

    for start in range(0, len(cases), batch_size):
        read = []
        for case in cases[start : start + batch_size]:
            try:
                read.append(read_bags(captioner, case))
            except WsiMivpgError as problem:
                fail(case.case_id, problem)
        yield min(start + batch_size, len(cases)), apart(read, work, fail)
