"""Execute the steps of a Dockerfile or an Apptainer definition in clean Debian roots: debootstrap, no engine.

    sudo docker/prove.py docker/Dockerfile.cpu --work /tmp/prove --then 'wsi-mivpg doctor'

What this proves and what it does not: docs/containers.md. Each step runs in a chroot with its own mounts and process
numbers, which end with it; `--work` holds the roots and is left there for a look: remove it with rm -rf. What this
machine needs to reach its mirrors is given by --carry and --env, and is no part of a recipe.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from apptainer import stage_of
from dockerfile import RecipeProblem, Stage, assignments, command_line, health_command, read_stages, substituted

SUITES = {"debian:trixie-slim": "trixie", "debian:bookworm-slim": "bookworm"}
MIRROR = "http://deb.debian.org/debian"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Machine:
    """What this machine lends to every step, and where things lie."""

    context: Path
    work: Path
    mirror: str
    carried: list[Path]
    lent: dict[str, str]
    build_arguments: dict[str, str]


@dataclass
class Root:
    """A stage's file system and the state that its instructions have brought about."""

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    workdir: str = "/"
    health: list[str] = field(default_factory=list)


def main() -> int:
    """Prove one recipe; the exit code is 0 when every step, its health check and every --then succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a Dockerfile, or an Apptainer definition (.def)")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder on a disk with 30 GB free")
    parser.add_argument("--context", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--mirror", default=MIRROR)
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--carry", action="append", default=[], type=Path, help="this machine's file, in every root")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="this machine's variable")
    parser.add_argument("--then", action="append", default=[], metavar="COMMAND", help="run as its user, no network")
    wanted = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("debootstrap and chroot need root")
    machine = Machine(
        wanted.context.resolve(),
        wanted.work.resolve(),
        wanted.mirror,
        wanted.carry,
        dict(pair.split("=", 1) for pair in wanted.env),
        dict(pair.split("=", 1) for pair in wanted.build_arg),
    )
    try:
        if wanted.recipe.suffix == ".def":
            root = prove([stage_of(wanted.recipe, machine.build_arguments)], machine)
        else:
            root = prove(read_stages(wanted.recipe), machine)
        if root.health:
            run(root, machine, root.health, "health check", network=False)
        for command in wanted.then:
            run(root, machine, command_line(command), command, network=False)
    except (RecipeProblem, subprocess.CalledProcessError) as problem:
        print(f"not proved: {problem}", file=sys.stderr)
        return 1
    print(f"proved: {wanted.recipe}; root of {size_gb(root.folder):.2f} GB in {root.folder}")
    return 0


def prove(stages: list[Stage], machine: Machine) -> Root:
    """Execute all stages; return the last one's root."""
    made: dict[str, Root] = {}
    for number, stage in enumerate(stages):
        name = stage.name or f"stage{number}"
        root = made[name] = Root(machine.work / name)
        if root.folder.exists():
            raise RecipeProblem(f"{root.folder} is there from an earlier proof; remove it, or choose another --work")
        print(f"== {name}: FROM {stage.base}", flush=True)
        # Not shutil: it neither keeps owners nor copies devices.
        subprocess.run(["cp", "-a", base_of(stage.base, machine), root.folder], check=True)
        for file in machine.carried:
            target = root.folder / file.resolve().relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        for one in stage.instructions:
            step(one.word, one.rest, root, machine, made)
    return root


def step(word: str, rest: str, root: Root, machine: Machine, made: dict[str, Root]) -> None:
    """Execute one instruction."""
    variables = root.arguments | root.environment
    match word:
        case "ARG":
            name, _, default = rest.partition("=")
            root.arguments[name] = machine.build_arguments.get(name, substituted(default.strip('"'), variables))
        case "ENV":
            root.environment |= assignments(rest, variables)
        case "WORKDIR":
            root.workdir = substituted(rest, variables)
            inside(root.folder, root.workdir).mkdir(parents=True, exist_ok=True)
        case "COPY":
            copy(substituted(rest, variables), root, machine, made)
        case "RUN":
            run(root, machine, command_line(rest), rest)
        case "USER":
            root.user = rest
        case "HEALTHCHECK":
            root.health = health_command(rest)
        case "VOLUME" | "ENTRYPOINT" | "CMD":
            return  # say nothing about what is in the image


def run(root: Root, machine: Machine, command: list[str], label: str, *, network: bool = True) -> None:
    """Run one command in the root, as its user, in its folder, with its variables and those that this machine lends.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    print(f"-- [{root.user}] {label}", flush=True)
    started = time.monotonic()
    folder = str(root.folder)
    mounts = f'mount -t proc proc "{folder}/proc" && mount -t tmpfs tmpfs "{folder}/dev/shm" && exec "$@"'
    inner = ["chroot", f"--userspec={root.user}", folder, "/usr/bin/env", "-C", root.workdir, *command]
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
    subprocess.run(
        [*apart, "sh", "-c", mounts, "step", *inner],
        env={"PATH": PATH, "HOME": "/tmp"} | root.arguments | root.environment | machine.lent,
        check=True,
    )
    print(f"   {time.monotonic() - started:.0f} s", flush=True)


def copy(rest: str, root: Root, machine: Machine, made: dict[str, Root]) -> None:
    """Copy files from the context, or with --from from another stage."""
    words = rest.split()
    source = machine.context
    if words[0].startswith("--from="):
        source = made[words.pop(0).removeprefix("--from=")].folder
    *names, to = words
    target = inside(root.folder, str(Path(root.workdir) / to))
    for name in names:
        one = source / name.lstrip("/")
        if one.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "--no-preserve=ownership", f"{one}/.", target], check=True)
        else:
            into = target / one.name if len(names) > 1 or to.endswith("/") else target
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(one, into)


def base_of(image: str, machine: Machine) -> Path:
    """Return a clean root of the image's Debian release, made on the first call."""
    suite = SUITES.get(image)
    if suite is None:
        raise RecipeProblem(f"FROM {image}: only {', '.join(SUITES)} can be made with debootstrap")
    folder = machine.work / f"base-{suite}"
    if not folder.exists():
        making = folder.with_suffix(".making")
        print(f"== debootstrap {suite}", flush=True)
        log = machine.work / "debootstrap.log"
        machine.work.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stream:
            command = ["debootstrap", "--variant=minbase", suite, str(making), machine.mirror]
            subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=True)
        for name in ("resolv.conf", "hosts"):
            shutil.copyfile(f"/etc/{name}", making / "etc" / name)
        making.rename(folder)
    return folder


def inside(folder: Path, path: str) -> Path:
    """Return where an absolute path of the root lies on this machine."""
    return folder / path.lstrip("/")


def size_gb(folder: Path) -> float:
    """Return the size of all files of a root, hard links counted once."""
    sizes = {}
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            about = file.lstat()
            sizes[about.st_dev, about.st_ino] = about.st_size
    return sum(sizes.values()) / 1e9


if __name__ == "__main__":
    sys.exit(main())
