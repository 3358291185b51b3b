"""A JupyterLab server of its own for tests: isolated folders, a token, a free port; and notebooks to open in it."""

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

import nbformat

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
    log: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | places | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    reading = threading.Thread(target=lambda: log.extend(process.stdout), daemon=True)
    reading.start()
    try:
        until = time.monotonic() + seconds
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", "".join(log))):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError("JupyterLab did not start:\n" + "".join(log))
            time.sleep(0.1)
        yield Lab(found[0], folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
