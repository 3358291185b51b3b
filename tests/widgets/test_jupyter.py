"""The widget in a real JupyterLab and a real Notebook: one server, one Chromium, a kernel that serves the tiles."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.widgets.lab import (
    CHOSEN,
    SET,
    SHOW,
    VIEWER,
    Lab,
    Problems,
    pixels_of,
    running_lab,
    use_viewer,
    wait_for_viewer,
    wait_for_what_python_set,
    write_notebook,
)

BUSY = """
import pathlib, time
print("busy", flush=True)
while not pathlib.Path("go on").exists():
    time.sleep(0.05)"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, case_folder: Path) -> Iterator[Lab]:
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    folder = tmp_path_factory.mktemp("lab")
    show = SHOW.format(folder=case_folder)
    for name in ("lab.ipynb", "notebook.ipynb"):
        write_notebook(folder / name, [show, CHOSEN, BUSY, SET])
    with running_lab(folder) as running:
        yield running


def run_next(page: Any) -> None:
    """Run the active cell and go to the next."""
    page.keyboard.press("Shift+Enter")


def test_in_jupyterlab_the_kernel_serves_the_slide_and_python_sees_what_is_chosen(browser: Any, lab: Lab):
    page = browser.new_page(viewport={"width": 1500, "height": 1400})
    page.set_default_timeout(60_000)  # a busy machine is not a failure
    problems = Problems()
    problems.watch(page)
    page.goto(lab.lab_url("lab.ipynb"))
    lab.wait_for_kernel("lab.ipynb")
    page.locator(".jp-CodeCell .cm-content").first.click()
    run_next(page)
    wait_for_viewer(page)

    chosen = use_viewer(page)
    x, y = page.evaluate(
        f"(async () => Array.from((await {VIEWER}.loadPlaces()).slice({2 * chosen}, {2 * chosen + 2})))()"
    )
    page.locator(".jp-CodeCell .cm-content").nth(1).click()
    run_next(page)
    output = page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")
    output.filter(has_text=f"chosen [({chosen}, 'rendered-test-0000', {x}, {y}, 224.0)]").wait_for()

    # While the kernel computes, the slide can still be looked at.
    run_next(page)
    page.locator(".jp-CodeCell").nth(2).locator(".jp-OutputArea-output", has_text="busy").wait_for()
    asked = page.evaluate(f"{VIEWER}.queue.asked")
    page.evaluate(f"{VIEWER}.viewer.viewport.zoomBy(0.3, null, true)")
    page.evaluate(f"{VIEWER}.viewer.viewport.zoomBy(8, null, true)")
    page.wait_for_function(f"() => {VIEWER}.queue.asked > {asked}")
    page.wait_for_function(f"() => {VIEWER}.viewer.world.getItemAt(0).getFullyLoaded()")
    (lab.folder / "go on").touch()

    # What Python sets is shown.
    run_next(page)
    wait_for_what_python_set(page)
    assert problems == []
    page.close()


def test_in_notebook_7_the_same_viewer_works(browser: Any, lab: Lab):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(60_000)  # a busy machine is not a failure
    problems = Problems()
    problems.watch(page)
    page.goto(lab.notebook_url("notebook.ipynb"))
    lab.wait_for_kernel("notebook.ipynb")
    page.locator(".jp-CodeCell .cm-content").first.click()
    run_next(page)
    wait_for_viewer(page)
    pixels = pixels_of(page, "viewer.drawer.canvas")
    assert pixels[pixels[..., 3] > 0][:, :3].std(axis=0).min() > 10
    # Keys that are pressed in the viewer are not the notebook's: "d d" would delete the cell.
    cells = page.locator(".jp-CodeCell").count()  # those that are in view
    page.locator(".wm-osd .openseadragon-canvas").first.focus()
    page.keyboard.press("d")
    page.keyboard.press("d")
    page.wait_for_timeout(500)
    assert page.locator(".jp-CodeCell").count() == cells
    assert page.evaluate("document.activeElement.classList.contains('openseadragon-canvas')")
    assert problems == []
    page.close()
