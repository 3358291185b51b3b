"""What every command shares: exit codes, errors on stderr, results on stdout, progress on stderr.

Knows nothing of slides or models; anything heavy is loaded only when it is needed.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from wsi_mivpg.errors import OutputError

ALL_DONE = 0
NOTHING_USABLE = 1
WRONG_USAGE = 2
SOME_FAILED = 3
STOPPED = 128
"""Plus the signal's number."""

_SECONDS_BETWEEN_LINES = 5.0


def error(message: object) -> None:
    """Print one ``error: …`` line on stderr."""
    print(f"error: {message}", file=sys.stderr)


def note(message: object) -> None:
    """Print one line on stderr that is not a result."""
    print(message, file=sys.stderr)


def result(data: object, text: str, *, as_json: bool) -> None:
    """Print a command's result on stdout: `data` as JSON, or `text` for people."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str) if as_json else text)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return aligned plain-text columns."""
    lines = [[str(cell) for cell in line] for line in (headers, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def finish(n_done: int, n_failed: int) -> None:
    """Leave the command with the exit code that fits what came out."""
    if n_failed:
        raise typer.Exit(SOME_FAILED if n_done else NOTHING_USABLE)


def writable_folder(path: Path, way_out: str = "choose another --out") -> Path:
    """Create `path` and prove that files can be written there, before any long work; `way_out` ends the error.

    Raises:
        OutputError: it is a file, or its place cannot be written.
    """
    probe = path / ".wsi-mivpg-probe.tmp"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise OutputError(f"cannot write in {path}: {problem.strerror}; {way_out}") from problem
    return path


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield ``advance(done, total, name)``: a rich bar on a terminal, plain lines otherwise, on stderr."""
    if not sys.stderr.isatty():
        yield _plain_lines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=f"{label} {name}")


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM, which Slurm and `kill` send, stop a run as Ctrl-C does: cleanly, with a shell's exit code."""

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as problem:
        is_sigterm = isinstance(problem, _Terminated)
        note("stopped; what is there is whole, and the same command goes on")
        sys.exit(STOPPED + (signal.SIGTERM if is_sigterm else signal.SIGINT))
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def quieten_transformers() -> None:
    """Keep the library's own progress bars off stderr; ours say what is going on."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _plain_lines(label: str) -> Callable[[int, int, str], None]:
    """A line when something is finished, and otherwise at most one every few seconds."""
    last = time.monotonic()

    def advance(done: int, total: int, name: str) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            note(f"{label} [{done}/{total}] {name}")

    return advance
