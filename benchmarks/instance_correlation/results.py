"""The results as they are kept: one JSON file for each system, seed and number of training cases."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsi_mivpg.atomic import write_text

FOLDER = Path(__file__).parent / "results"


def result_path(folder: Path, source: str, system: str, n_train: int, seed: int) -> Path:
    """Return where a result is kept."""
    return folder / f"{source}-{re.sub('[^a-z]+', '-', system.lower())}-n{n_train}-s{seed}.json"


def keep(path: Path, result: dict[str, Any]) -> None:
    """Write a result whole, or not at all; lists of numbers stay on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in result.items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def load(folder: Path) -> list[dict[str, Any]]:
    """Return all results of a folder, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def of(results: Iterable[dict[str, Any]], source: str, system: str, n_train: int) -> list[dict[str, Any]]:
    """Return the results of a system, by seed."""
    found = [r for r in results if (r["source"], r["system"], r["n_train"]) == (source, system, n_train)]
    return sorted(found, key=lambda r: int(r["seed"]))
