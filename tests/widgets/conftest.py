"""One case of two slides for all tests of the viewer, and a real browser to look at it."""

from pathlib import Path

import pytest

from tests.browser import browser
from tests.widgets.cases import write_case

__all__ = ["browser"]


@pytest.fixture(scope="session")
def case_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as `wsi-mivpg report` leaves it: a case of two slides with its evidence. Do not write in it."""
    folder = tmp_path_factory.mktemp("case")
    write_case(folder, 2)
    return folder
