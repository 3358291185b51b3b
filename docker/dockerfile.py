"""Read the subset of the Dockerfile language that our recipes use: instructions, stages, variables.

Knows nothing of machines; an instruction outside the subset is an error, so that nothing is skipped in silence.
"""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

KNOWN = ("FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD")


class RecipeProblem(Exception):
    """A recipe that this reader does not understand; the message names the file, the line and the text."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, the rest with continued lines joined, and the line that it begins in."""

    word: str
    rest: str
    line: int


@dataclass(frozen=True)
class Stage:
    """The instructions from one FROM to the next; `name` is None for a stage without AS."""

    base: str
    name: str | None
    instructions: tuple[Instruction, ...]


def read_stages(path: Path) -> list[Stage]:
    """Return the stages of a Dockerfile in order.

    Raises:
        RecipeProblem: an instruction that is not in `KNOWN`, a malformed FROM, or something before the first FROM.
    """
    stages: list[Stage] = []
    for one in read_instructions(path):
        if one.word == "FROM":
            match = re.fullmatch(r"(\S+)(?:\s+AS\s+(\S+))?", one.rest, re.IGNORECASE)
            if match is None:
                raise RecipeProblem(f"{path}, line {one.line}: FROM {one.rest}")
            stages.append(Stage(match[1], match[2], ()))
        elif not stages:
            raise RecipeProblem(f"{path}, line {one.line}: {one.word} before the first FROM")
        else:
            last = stages[-1]
            stages[-1] = Stage(last.base, last.name, (*last.instructions, one))
    return stages


def read_instructions(path: Path) -> list[Instruction]:
    """Return all instructions of a Dockerfile; comments and parser directives are left out."""
    found: list[Instruction] = []
    parts: list[str] = []
    begins = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begins = begins if parts else number
        parts.append(line.rstrip().removesuffix("\\").strip())
        if line.rstrip().endswith("\\"):
            continue
        word, _, rest = " ".join(parts).partition(" ")
        if word.upper() not in KNOWN:
            raise RecipeProblem(f"{path}, line {begins}: {word} is not one of {', '.join(KNOWN)}")
        found.append(Instruction(word.upper(), rest.strip(), begins))
        parts = []
    if parts:
        raise RecipeProblem(f"{path}, line {begins}: the file ends within an instruction")
    return found


def assignments(rest: str, variables: dict[str, str]) -> dict[str, str]:
    """Return the variables that an ENV sets, `$NAME` and `${NAME}` replaced from `variables`."""
    pairs = [word.partition("=") for word in shlex.split(rest)]
    return {name: substituted(value, variables) for name, _, value in pairs}


def substituted(text: str, variables: dict[str, str]) -> str:
    """Return `text` with `$NAME` and `${NAME}` replaced; a name that is not set becomes nothing, as in Docker."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: variables.get(found[1] or found[2], ""), text)


def command_line(rest: str) -> list[str]:
    """Return the words of a RUN, CMD, ENTRYPOINT or HEALTHCHECK: its JSON list, or the shell that takes its text."""
    if rest.startswith("["):
        return [str(word) for word in json.loads(rest)]
    return ["/bin/sh", "-c", rest]


def health_command(rest: str) -> list[str]:
    """Return the words of a HEALTHCHECK's command, without its options."""
    _, found, command = rest.partition("CMD ")
    if not found:
        raise RecipeProblem(f"HEALTHCHECK {rest}: no CMD")
    return command_line(command.strip())
