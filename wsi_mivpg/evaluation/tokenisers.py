"""Tokenisers: from a text to its tokens, joined by single spaces, as the COCO toolkit hands texts to its metrics.

Which one was used changes every score; `NAMES` says what stands in a metric's signature.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib import util
from pathlib import Path

from wsi_mivpg.errors import TextsError

Tokeniser = Callable[[Sequence[str]], list[str]]

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")
_PTB_JAR = "stanford-corenlp-3.4.1.jar"
# What the COCO toolkit takes out after tokenisation, brackets by their Penn Treebank names.
_PTB_PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


def tokenise(text: str) -> list[str]:
    """Lower-case `text` and keep its words and numbers; punctuation and signs separate and are dropped."""
    return _TOKEN.findall(text.lower())


def words(texts: Sequence[str]) -> list[str]:
    """Return each text's words and numbers in lower case; needs nothing installed."""
    return [" ".join(tokenise(text)) for text in texts]


def whitespace(texts: Sequence[str]) -> list[str]:
    """Return the texts as they are: the R2Gen family scores what its decoder wrote, split at spaces."""
    return list(texts)


def ptb(texts: Sequence[str]) -> list[str]:
    """Return lower-case Penn Treebank tokens without punctuation, by the COCO toolkit's Java tokeniser.

    Every run of white space becomes one space first; the toolkit itself would break a text at some of them.

    Raises:
        TextsError: Java or pycocoevalcap is missing (see `java_missing`), or the tokeniser fails.
    """
    return list(_ptb(tuple(texts)))


NAMES: dict[str, str] = {
    "words": "words+numbers|case:lower",
    "whitespace": "whitespace|case:kept",
    "ptb": "ptb-3.4.1,punctuation-dropped|case:lower",
}
"""Tokeniser -> what it is called in signatures."""

TOKENISERS: dict[str, Tokeniser] = {"words": words, "whitespace": whitespace, "ptb": ptb}


@cache
def java_missing() -> str | None:
    """Return why the toolkit's Java parts (PTB, METEOR) cannot run here; None if they can."""
    if toolkit() is None:
        return "pycocoevalcap is not installed; pip install 'wsi-mivpg[evaluate]'"
    if shutil.which("java") is None:
        return "Java is not here; install a Java runtime (Debian and Ubuntu: apt-get install default-jre-headless)"
    return None


@cache
def toolkit() -> Path | None:
    """Return pycocoevalcap's folder; None where it is not installed."""
    spec = util.find_spec("pycocoevalcap")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def run_java(arguments: Sequence[str], lines: Sequence[str], folder: str) -> list[str]:
    """Run a Java program of the toolkit on UTF-8 lines and return its lines.

    Args:
        arguments: after ``java``.
        lines: its standard input; none holds a line break.
        folder: of the toolkit, where it runs.

    Raises:
        TextsError: Java is missing, or the program fails; the message has its last line.
    """
    where = toolkit()
    if (why := java_missing()) or where is None:
        raise TextsError(why or "pycocoevalcap is not installed")
    command = ["java", "-Dfile.encoding=UTF-8", *arguments]
    content = "".join(line + "\n" for line in lines).encode()
    done = subprocess.run(command, cwd=where / folder, input=content, capture_output=True, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise TextsError(
            f"{' '.join(command[:4])} … failed with {done.returncode}: {last[0]}; is its Java runtime whole?"
        )
    return done.stdout.decode().split("\n")[:-1]


@lru_cache(maxsize=16)
def _ptb(texts: tuple[str, ...]) -> tuple[str, ...]:
    lines = [" ".join(text.split()) for text in texts]
    program = ["-cp", _PTB_JAR, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    found = run_java(program, lines, "tokenizer") if texts else []
    if len(found) != len(lines):
        raise TextsError(f"the PTB tokeniser returned {len(found)} texts for {len(lines)}; a text breaks its lines")
    return tuple(" ".join(word for word in line.rstrip().split(" ") if word not in _PTB_PUNCTUATION) for line in found)
