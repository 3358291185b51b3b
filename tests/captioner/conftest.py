"""Captioners small enough for tests, of every family of language models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.one_thread import one_thread
from tests.tiny_captioner import tiny_config as config_of
from tests.tiny_captioner import write_tiny_language_model
from wsi_mivpg.captioner import CaptionerConfig, CaseBags, in_memory

__all__ = ["one_thread"]

Bases = Callable[[str], Path]


@pytest.fixture(scope="session")
def tiny_base_of(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Return what writes a tiny language model of a family, once, and returns its folder."""
    written: dict[str, Path] = {}

    def base_of(family: str) -> Path:
        if family not in written:
            written[family] = tmp_path_factory.mktemp(family)
            write_tiny_language_model(written[family], family)
        return written[family]

    return base_of


@pytest.fixture(scope="session")
def tiny_language_model(tiny_base_of: Bases) -> Path:
    return tiny_base_of("llama")


@pytest.fixture
def tiny_config(tiny_language_model: Path) -> CaptionerConfig:
    return config_of(tiny_language_model)


@pytest.fixture
def cases() -> list[CaseBags]:
    """Four cases, the second of two slides."""
    generator = torch.Generator().manual_seed(7)
    bags = [torch.randn(count, 12, generator=generator) for count in (3, 9, 5, 7)]
    return [
        in_memory("a", bags[0]),
        in_memory("b", bags[1][:4], bags[1][4:]),
        in_memory("c", bags[2]),
        in_memory("d", bags[3]),
    ]
