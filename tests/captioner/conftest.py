"""A captioner small enough for tests."""

from pathlib import Path

import pytest

from tests.tiny_captioner import tiny_config as config_of
from tests.tiny_captioner import write_tiny_language_model
from wsi_mivpg.captioner import CaptionerConfig


@pytest.fixture(scope="session")
def tiny_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language-model")
    write_tiny_language_model(folder)
    return folder


@pytest.fixture
def tiny_config(tiny_language_model: Path) -> CaptionerConfig:
    return config_of(tiny_language_model)
