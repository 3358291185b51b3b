"""The program is also a module: ``python -m wsi_mivpg``."""

import subprocess
import sys

from wsi_mivpg import __version__


def test_python_dash_m_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "wsi_mivpg", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__
