"""Work on cases together, and on each alone where one of them cannot be done."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from wsi_mivpg.captioner import CaseBags
from wsi_mivpg.errors import ModelError, WsiMivpgError

Made = TypeVar("Made")
Fail = Callable[[str, object], None]


def apart(cases: Sequence[CaseBags], work: Callable[[Sequence[CaseBags]], list[Made]], fail: Fail) -> list[Made]:
    """Return what becomes of these cases; one that cannot be done is left out.

    Args:
        cases: read.
        work: done on all of them, and if that fails, on each.
        fail: told the id of a case that cannot be done, and why.
    """
    if not cases:
        return []
    try:
        return work(cases)
    except (WsiMivpgError, torch.OutOfMemoryError) as problem:
        if len(cases) > 1:
            return [made for case in cases for made in apart([case], work, fail)]
        if isinstance(problem, torch.OutOfMemoryError):
            problem = ModelError(f"case {cases[0].case_id!r} does not fit into the device's memory; try --device cpu")
        fail(cases[0].case_id, problem)
        return []
