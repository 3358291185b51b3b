"""A captioner with random weights over printable characters, and cases for it."""

from collections.abc import Callable

import pytest
import torch

from tests.one_thread import one_thread
from tests.tiny_captioner import tiny_config, write_tiny_language_model
from wsi_mivpg.captioner import CaseBags, SlideCaptioner, in_memory

__all__ = ["one_thread"]

CaptionerOf = Callable[[str], SlideCaptioner]


@pytest.fixture(scope="session")
def captioner_of(tmp_path_factory: pytest.TempPathFactory) -> CaptionerOf:
    """Return what makes a tiny captioner over a language model of a family, once."""
    made: dict[str, SlideCaptioner] = {}

    def captioner(family: str) -> SlideCaptioner:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            write_tiny_language_model(folder, family)
            torch.manual_seed(3)
            made[family] = SlideCaptioner.create(tiny_config(folder)).eval()
        return made[family]

    return captioner


@pytest.fixture(scope="session")
def captioner(captioner_of: CaptionerOf) -> SlideCaptioner:
    return captioner_of("llama")


@pytest.fixture(scope="session")
def cases() -> list[CaseBags]:
    """Four cases, the second of two slides."""
    generator = torch.Generator().manual_seed(7)
    bags = [3 * torch.randn(count, 12, generator=generator) for count in (3, 9, 5, 7)]
    return [in_memory("a", bags[0]), in_memory("b", bags[1][:4], bags[1][4:]), *map(in_memory, "cd", bags[2:])]
