"""A JupyterLab server of its own for tests: isolated folders, a token, a free port; and the viewer in its notebooks."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image

from tests.widgets.cases import SENTENCES

VIEWER = "document.querySelector('.wm-root').caseViewer"
SHOW = """
from pathlib import PosixPath
from wsi_mivpg.reports import read_jsonl
from wsi_mivpg.widgets import SlideViewer
viewer = SlideViewer(report=read_jsonl({folder!r} / "reports.jsonl")[0], folder={folder!r})
viewer"""
CHOSEN = "print('chosen', [tuple(tile) for tile in viewer.selected_tiles])"
SET = "viewer.row = 1; viewer.opacity = 0.25; viewer.selected = [3, 4]; print('set')"

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "only-for-this-test"


@dataclass(frozen=True)
class Lab:
    """A running server: its address and the folder that it shows."""

    address: str
    folder: Path

    def lab_url(self, notebook: str) -> str:
        return f"{self.address}lab/tree/{notebook}?token={TOKEN}&reset"

    def notebook_url(self, notebook: str) -> str:
        return f"{self.address}notebooks/{notebook}?token={TOKEN}"

    def wait_for_kernel(self, notebook: str, seconds: float = 90) -> None:
        """Wait until a notebook's kernel is idle and its page is connected: a cell that is run before may be lost."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with urllib.request.urlopen(f"{self.address}api/sessions?token={TOKEN}", timeout=seconds) as reply:
                kernels = [session["kernel"] for session in json.load(reply) if session["path"] == notebook]
            if kernels and kernels[0]["execution_state"] == "idle" and kernels[0]["connections"]:
                return
            time.sleep(0.2)
        raise TimeoutError(f"the kernel of {notebook} did not start within {seconds} s")


def write_notebook(path: Path, cells: list[str]) -> None:
    """Write a notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@contextmanager
def running_lab(folder: Path, seconds: float = 60, theme: str = "JupyterLab Light") -> Iterator[Lab]:
    """Start JupyterLab over a folder, wait until it answers, and end it."""
    own = folder / ".jupyter-of-the-test"
    places = {
        name: str(own / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "HOME")
    }
    for place in places.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    settings = {
        "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        "IPYTHONDIR": str(own / "ipython"),
        "PYTHONPATH": str(REPOSITORY),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    settings_of = Path(settings["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / "apputils-extension"
    settings_of.mkdir(parents=True, exist_ok=True)
    # No question about news in front of the notebook, and no request for them.
    quiet = '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}'
    (settings_of / "notification.jupyterlab-settings").write_text(quiet)
    (settings_of / "themes.jupyterlab-settings").write_text(f'{{"theme": "{theme}"}}')
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--port=0",
        f"--IdentityProvider.token={TOKEN}",
    ]
    command += ["--ServerApp.ip=127.0.0.1"]
    with running_server(command, folder, os.environ | places | settings, seconds) as address:
        yield Lab(address, folder)


@contextmanager
def running_server(command: list[str], folder: Path, environment: dict[str, str], seconds: float) -> Iterator[str]:
    """Start a server in a folder, wait until it says at which address it listens, give that, and end it."""
    log: list[str] = []
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    reading = threading.Thread(target=lambda: log.extend(process.stdout), daemon=True)
    reading.start()
    try:
        until = time.monotonic() + seconds
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", "".join(log))):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"{command} did not start:\n" + "".join(log))
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Problems(list[str]):
    """What went wrong in our part of the browser's page: a widget's script has a blob for its address."""

    def watch(self, page: Any) -> None:
        page.on("pageerror", lambda error: self._note(str(error), error.stack or ""))
        page.on(
            "console",
            lambda said: self._note(said.text, said.location.get("url", "")) if said.type == "error" else None,
        )

    def _note(self, text: str, place: str) -> None:
        if any(word in text + place for word in ("blob:", "OpenSeadragon", "Tile", "anywidget", "wm-")):
            self.append(text)


def wait_for_viewer(page: Any) -> None:
    page.locator(".wm-root").wait_for()
    page.wait_for_function(f"() => document.querySelector('.wm-root') && {VIEWER} && {VIEWER}.cells && {VIEWER}.values")
    page.wait_for_function(f"() => {VIEWER}.viewer.world.getItemAt(0)?.getFullyLoaded()")


def pixels_of(page: Any, canvas: str) -> np.ndarray:
    png = page.evaluate(f"{VIEWER}.{canvas}.toDataURL('image/png')").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))


def use_viewer(view: Any) -> int:
    """Look at the slide, then choose a sentence and a tile, in a page or frame with the viewer; return the tile."""
    # The slide is drawn from tiles that came as messages.
    pixels = pixels_of(view, "viewer.drawer.canvas")
    tissue = pixels[..., 3] > 0
    assert tissue.mean() > 0.2
    assert pixels[tissue][:, :3].std(axis=0).min() > 10

    # A sentence changes the map.
    before = pixels_of(view, "heat")
    view.get_by_role("button", name=SENTENCES[0]).click()
    view.wait_for_function(f"() => {VIEWER}.shownRow === 0")
    assert (pixels_of(view, "heat") != before).any()

    # A click on a tile marks its sentences, and Python knows it.
    view.locator(".wm-goto").first.click()
    view.wait_for_function(f"() => {VIEWER}.state.get('selected').length === 1")
    view.wait_for_function("() => document.querySelectorAll('.wm-supported').length > 0")
    return view.evaluate(f"{VIEWER}.state.get('selected')[0]")


def wait_for_what_python_set(view: Any) -> None:
    """Wait until the viewer shows what the cell `SET` sets."""
    view.wait_for_function(f"() => {VIEWER}.shownRow === 1")
    view.wait_for_function("() => document.querySelector('.wm-chosen').textContent === '2 tiles chosen'")
    assert view.locator(".wm-heat").evaluate("canvas => canvas.style.opacity") == "0.25"
