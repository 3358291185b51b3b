"""The committed notebooks show what a run gave, and nothing of the machine it ran on. Running them is nbmake's job."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
MOST_BYTES = 600_000
OF_A_MACHINE = re.compile(r"/home/|/root/|/work/|/tmp/|/Users/|/mnt/|site-packages|[A-Z]:\\|\x1b\[")
"""Folders of a developer, and escape codes of a terminal."""


def _read(name: str) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return notebook


def _outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


def _shown(output: dict[str, Any]) -> str:
    """All text of an output; pictures are left out, whose letters say anything."""
    parts = [output.get("text", ""), *(part for kind, part in output.get("data", {}).items() if "image" not in kind)]
    return re.sub(r"data:[a-z/+]+;base64,[A-Za-z0-9+/=]+", "", "".join("".join(part) for part in parts))


def test_the_notebooks_that_the_docs_name_are_there() -> None:
    named = re.findall(r"^\| `(\d\d_\w+)`", (FOLDER.parent / "docs" / "notebooks.md").read_text(), re.M)
    assert [f"{name}.ipynb" for name in named] == NOTEBOOKS
    assert len(NOTEBOOKS) == 5


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_was_run_from_top_to_bottom_and_shows_it(name: str) -> None:
    code = [cell for cell in _read(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = _outputs(_read(name))
    assert len(outputs) >= 3
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if "Traceback" in _shown(output) or "Warning" in _shown(output)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_says_nothing_of_the_machine_that_ran_it(name: str) -> None:
    notebook = _read(name)
    for output in _outputs(notebook):
        assert not OF_A_MACHINE.search(_shown(output)), _shown(output)[:500]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"]
    assert not [cell for cell in notebook["cells"] if "execution" in cell["metadata"]]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_small_enough_to_be_kept_in_git(name: str) -> None:
    assert (FOLDER / name).stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_leads_to_others_that_exist(name: str) -> None:
    prose = "".join("".join(cell["source"]) for cell in _read(name)["cells"] if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert (FOLDER / target).exists(), target
    for page in re.findall(r"`(docs/[\w-]+\.md)`", prose):
        assert (FOLDER.parent / page).is_file(), page
