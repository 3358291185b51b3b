"""Read an Apptainer definition as the one stage that its sections amount to, to be proved like a Dockerfile.

Knows the sections that ours uses; another one is an error, so that nothing is skipped in silence.
"""

import re
from pathlib import Path

from dockerfile import Instruction, RecipeProblem, Stage

SECTIONS = ("arguments", "files", "post", "environment", "test", "runscript", "help")


def stage_of(path: Path, build_arguments: dict[str, str]) -> Stage:
    """Return the definition as instructions: %files, %post as root, %environment, then %test as an ordinary user.

    Raises:
        RecipeProblem: an unknown section, an argument without a value, or another header than Bootstrap and From.
    """
    header, sections = read_sections(path)
    if header.keys() != {"bootstrap", "from"} or header["bootstrap"] != "docker":
        raise RecipeProblem(f"{path}: the header must say Bootstrap: docker and From, and says {header}")
    given = dict(line.split("=", 1) for line in sections.get("arguments", []))
    made = [Instruction("COPY", line, 0) for line in sections.get("files", [])]
    made.append(Instruction("RUN", _filled("\n".join(sections["post"]), given | build_arguments, path), 0))
    exports = [line.removeprefix("export ") for line in sections.get("environment", [])]
    made.extend(Instruction("ENV", line, 0) for line in exports)
    made.append(Instruction("USER", "1000:1000", 0))
    made.append(Instruction("HEALTHCHECK", "CMD " + "\n".join(sections["test"]), 0))
    return Stage(header["from"], None, tuple(made))


def read_sections(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the header's keys in lower case, and section -> its lines without indentation and comments."""
    header: dict[str, str] = {}
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("%"):
            name = text[1:]
            if name not in SECTIONS:
                raise RecipeProblem(f"{path}, line {number}: %{name} is not one of {', '.join(SECTIONS)}")
            current = sections[name] = []
        elif current is None:
            key, _, value = text.partition(":")
            header[key.strip().lower()] = value.strip()
        else:
            current.append(text)
    return header, sections


def _filled(text: str, values: dict[str, str], path: Path) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise RecipeProblem(f"{path}: nothing says what {{{{ {found[1]} }}}} is; pass --build-arg {found[1]}=…")
        return values[found[1]]

    return re.sub(r"\{\{\s*(\w+)\s*\}\}", value, text)
