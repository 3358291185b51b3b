"""The viewer's files: whole, in the package, and clear where the extra is missing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_mivpg import widgets
from wsi_mivpg.errors import ViewError
from wsi_mivpg.widgets.bundle import jupyter_script, page_script, style


@pytest.mark.parametrize("script", [jupyter_script, page_script])
def test_each_script_is_one_module_that_imports_and_fetches_nothing_from_outside(script, tmp_path: Path):
    text = script()
    ours = text[text.index("const COLOURS") :]
    assert "import" not in ours.split()
    assert "http" not in ours
    assert "sourceMappingURL" not in text
    assert ".innerHTML" not in ours
    if (node := shutil.which("node")) is None:
        pytest.skip("node is not installed, so that the script is not parsed here")
    module = tmp_path / "viewer.mjs"
    module.write_text(text)
    assert subprocess.run([node, "--check", module], capture_output=True, text=True, check=False).stderr == ""


def test_the_style_asks_for_no_other_file():
    assert "url(" not in style()
    assert "@import" not in style()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "wsi_mivpg.widgets.viewer", raising=False)
    monkeypatch.delattr(widgets, "viewer", raising=False)
    with pytest.raises(ViewError, match=r"pip install 'wsi-mivpg\[jupyter\]'"):
        widgets.SlideViewer  # noqa: B018


def test_the_server_needs_neither_the_extra_nor_torch():
    code = (
        "import sys; sys.modules['anywidget'] = None; import wsi_mivpg.widgets.server;"
        "print({'torch', 'transformers', 'ipywidgets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
