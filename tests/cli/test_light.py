"""The program starts fast, loads nothing heavy for help, and shows an example for every command."""

import resource
import subprocess
import sys

import pytest

from tests.extraction.crash import write_slides

COMMANDS = (
    ["doctor"],
    ["info"],
    ["encoders"],
    ["extract"],
    ["report"],
    ["explain"],
    ["export"],
    ["view"],
    ["train"],
    ["ask"],
    ["calibrate"],
    ["generate"],
    ["evaluate"],
    ["cohorts", "virtual"],
    ["cohorts", "import"],
    ["cohorts", "split"],
    ["cohorts", "check"],
    ["cohorts", "prepare"],
    ["bags", "check"],
    ["bags", "info"],
    ["bags", "convert"],
    ["shards"],
    ["overview"],
    ["cohorts", "collect"],
)

_PROBE = """
import sys
from wsi_mivpg.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as leaving:
    heavy = sorted({"torch", "transformers", "timm", "numpy"} & set(sys.modules))
    print("heavy:", heavy, file=sys.stderr)
    sys.exit(leaving.code)
"""


def run_probe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _PROBE, *arguments], capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy():
    done = run_probe("--help")
    assert done.returncode == 0
    assert "heavy: []" in done.stderr
    for command in COMMANDS:
        assert command[0] in done.stdout


def test_help_costs_less_than_half_a_second_of_processor_time():
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_probe("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time, not the clock: a busy machine does not make the program slower to start.
    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_examples_and_loads_nothing_heavy_for_it(command):
    done = run_probe(*command, "--help")
    assert done.returncode == 0
    assert f"wsi-mivpg {' '.join(command)}" in done.stdout.split("Usage", 1)[1].split("\n", 1)[1]
    assert "heavy: []" in done.stderr


@pytest.mark.parametrize("group", ["bags", "cohorts"])
def test_a_group_of_commands_shows_an_example(group):
    assert f"Example: wsi-mivpg {group} " in run_probe(group, "--help").stdout


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, wsi_mivpg; print({'torch', 'transformers', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_extraction_with_an_encoder_of_the_users_own_loads_no_torch(tmp_path):
    slides = write_slides(tmp_path / "slides", 1)
    encoder = "tests.extraction.driver:mean_colour"
    done = run_probe("extract", str(slides), "--out", str(tmp_path / "bags"), "--encoder", encoder)
    assert done.returncode == 0
    assert "heavy: ['numpy']" in done.stderr


def test_looking_at_evidence_that_is_there_loads_no_torch():
    code = (
        "import sys, wsi_mivpg.widgets.server; from wsi_mivpg.evidence import read_evidence; "
        "print({'torch', 'transformers', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
