"""A training to be killed: `python -m tests.training.crash FOLDER OUT [WHEN]`; see `test_crash`.

WHEN is `forward:N` (killed in the N-th forward pass), `writing:N` (killed while the N-th checkpoint is being written)
or `full:N` (from the N-th checkpoint on, no file may grow beyond a few kB, as if the disk were full).
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from tests.training.tiny_cohort import tiny_recipe, write_cases
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cli import console
from wsi_mivpg.errors import WsiMivpgError
from wsi_mivpg.training import Recipe, train
from wsi_mivpg.training.checkpoints import WholeCheckpoints

FEW_BYTES = 4096


def recipe_of(folder: Path) -> Recipe:
    """Twelve steps, a checkpoint every three."""
    return tiny_recipe(folder / "base", optim={"steps": 12, "save_every": 3}, alignment={"steps": 3, "batch_size": 2})


def arrange(when: str) -> None:
    """Let the training be killed, or the disk be full, when it is asked."""
    what, _, number = when.partition(":")
    calls = 0

    def now() -> bool:
        nonlocal calls
        calls += 1
        return calls == int(number)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if what == "forward":
        forward = SlideCaptioner.forward

        def killed_forward(self: SlideCaptioner, *args: Any, **kwargs: Any) -> Any:
            if now():
                die()
            return forward(self, *args, **kwargs)

        SlideCaptioner.forward = killed_forward  # type: ignore[method-assign]
    elif what == "writing":
        save_rng = WholeCheckpoints._save_rng_state

        def killed_writing(self: WholeCheckpoints, folder: str) -> None:
            if now():  # model and optimiser are written, the rest is not
                die()
            save_rng(self, folder)

        WholeCheckpoints._save_rng_state = killed_writing  # type: ignore[method-assign]
    elif what == "full":
        save = WholeCheckpoints._save_checkpoint

        def full_disk(self: WholeCheckpoints, *args: Any) -> None:
            if now():
                resource.setrlimit(resource.RLIMIT_FSIZE, (FEW_BYTES, resource.RLIM_INFINITY))
            save(self, *args)

        WholeCheckpoints._save_checkpoint = full_disk  # type: ignore[method-assign]


if __name__ == "__main__":
    place, out = Path(sys.argv[1]), Path(sys.argv[2])
    if len(sys.argv) > 3:
        arrange(sys.argv[3])
    try:
        train(recipe_of(place), write_cases(place / "bags"), out)
    except WsiMivpgError as problem:
        console.error(problem)
        sys.exit(console.NOTHING_USABLE)
