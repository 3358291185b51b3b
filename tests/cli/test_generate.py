"""`generate` writes a text for each case of a manifest, names those that it cannot, and shows controls."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.provenance import PROVENANCE
from tests.tiny_captioner import tiny_config, write_tiny_language_model
from wsi_mivpg.bags import write_bag
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cohorts.case import Case, write_manifest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_language_model(folder / "base")
    SlideCaptioner.create(tiny_config(folder / "base")).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Four cases of four patients, one of them of two slides."""
    rng = np.random.default_rng(0)
    cases = []
    for name, slides in (("a", 1), ("b", 2), ("c", 1), ("d", 1)):
        paths = tuple(tmp_path / f"{name}{slide}.h5" for slide in range(slides))
        for path in paths:
            _bag(path, rng.normal(0, 3, (5, 12)))
        cases.append(Case(name, (), paths, (f"report {name}",), "test"))
    write_manifest(tmp_path / "cases.jsonl", cases)
    return tmp_path / "cases.jsonl"


def _bag(path: Path, features: np.ndarray, encoder: str = "some-encoder") -> None:
    coords = np.column_stack([np.arange(len(features)), np.zeros(len(features), np.int64)]) * 300
    provenance = replace(PROVENANCE, slide_id=path.stem, encoder=encoder)
    write_bag(path, features.astype(np.float16), coords, np.ones(len(features), np.float32), provenance)


def _texts(path: Path) -> dict[str, str]:
    return {line["case_id"]: line["text"] for line in map(json.loads, path.read_text().splitlines())}


def test_every_case_gets_a_line_whatever_the_batch(run: Run, model: Path, manifest: Path, tmp_path: Path) -> None:
    for size in (1, 4):
        out = tmp_path / f"{size}.jsonl"
        code, shown, _ = run("generate", manifest, "--model", model, "--out", out, "--batch-size", size)
        assert code == 0
        assert [line.split(":")[0] for line in shown.splitlines()[:4]] == ["a", "b", "c", "d"]
    assert _texts(tmp_path / "1.jsonl") == _texts(tmp_path / "4.jsonl")
    assert list(_texts(tmp_path / "1.jsonl")) == ["a", "b", "c", "d"]


def test_a_case_that_cannot_be_read_or_written_about_is_named_and_the_rest_goes_on(
    run: Run, model: Path, manifest: Path, tmp_path: Path
) -> None:
    _bag(tmp_path / "a0.h5", np.zeros((3, 12)), encoder="another-encoder")
    _bag(tmp_path / "c0.h5", np.full((3, 12), np.nan))
    out = tmp_path / "texts.jsonl"
    code, _, errors = run("generate", manifest, "--model", model, "--out", out)
    assert code == 3
    assert list(_texts(out)) == ["b", "d"]
    assert "another-encoder" in errors
    assert "NaN" in errors


def test_a_stream_shows_the_text_once(run: Run, model: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts.jsonl"
    code, shown, _ = run("generate", manifest, "--model", model, "--out", out, "--stream")
    assert code == 0
    longest = max(_texts(out).values(), key=len)
    assert shown.count(longest) == 1


def test_controls_change_what_is_shown_and_nothing_else(run: Run, model: Path, manifest: Path, tmp_path: Path) -> None:
    made = {}
    for name in ("own", "shuffled", "zeroed", "text-only"):
        control = [] if name == "own" else ["--control", name]
        assert run("generate", manifest, "--model", model, "--out", tmp_path / f"{name}.jsonl", *control)[0] == 0
        made[name] = _texts(tmp_path / f"{name}.jsonl")
    assert list(made["own"]) == list(made["shuffled"]) == list(made["zeroed"]) == list(made["text-only"])
    assert len(set(made["text-only"].values())) == 1  # one prompt, one text
    assert made["text-only"]["a"] not in {made["own"]["a"], made["zeroed"]["a"]}
    one_slide = ["a", "c", "d"]
    assert len({made["zeroed"][name] for name in one_slide}) == 1  # as many zeros each
    assert len({made["own"][name] for name in one_slide}) > 1
    assert sorted(made["shuffled"].values()) == sorted(made["own"].values())
    assert made["shuffled"] != made["own"]
