"""METEOR 1.5 by the COCO toolkit's jar: exact, stem, synonym and paraphrase matches, which only the jar has.

The jar aligns texts and counts; the score of any sum of counts is computed here, so that it can be resampled.
"""

import atexit
import subprocess
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from wsi_mivpg.errors import TextsError
from wsi_mivpg.evaluation.joining import Pairs
from wsi_mivpg.evaluation.metric import Array, Metric
from wsi_mivpg.evaluation.tokenisers import NAMES, TOKENISERS, java_missing, toolkit

_N_STATISTICS = 23
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75  # METEOR 1.5's parameters for English
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of exact, stem, synonym and paraphrase matches


def meteor_metric(pairs: Pairs, tokeniser: str, prefix: str = "") -> Metric:
    """Return METEOR 1.5, 0..1, with the references that fit each prediction best.

    Raises:
        TextsError: Java or pycocoevalcap is missing, or the jar fails.
    """
    tokenised = TOKENISERS[tokeniser]([*pairs.predictions, *(text for texts in pairs.references for text in texts)])
    references = iter(tokenised[len(pairs) :])
    lines = [
        " ||| ".join(["SCORE", *(_plain(next(references)) for _ in texts), _plain(written)])
        for written, texts in zip(tokenised, pairs.references, strict=False)
    ]
    found = _jar().ask(lines)
    signature = f"METEOR-1.5|corpus|lang:en,norm|tok:{NAMES[tokeniser]}|jar:pycocoevalcap-1.2"
    return Metric(f"{prefix}meteor", signature, _statistics(found, len(pairs)), meteor_score)


def meteor_score(sums: Array) -> Array:
    """Return METEOR of summed counts (..., 23): F of weighted matches, less a penalty for broken order.

    Columns: words and function words of both texts; for each kind of match content and function words of both texts;
    chunks; matched words of both texts.
    """
    length, function = sums[..., 0:2], sums[..., 2:4]
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)  # kind of match; content (2 texts), function (2 texts)
    content, of_function = matches[..., 0:2], matches[..., 2:4]
    weighted = np.einsum("...kt,k->...t", _DELTA * content + (1 - _DELTA) * of_function, _WEIGHTS)
    total = _DELTA * (length - function) + (1 - _DELTA) * function
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(weighted / total, -1, 0)
        f_mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        fragments = sums[..., 20] / (sums[..., 21:23].sum(axis=-1) / 2)
        all_matched = (matches.sum(axis=-2)[..., 0:2] + matches.sum(axis=-2)[..., 2:4] == length).all(axis=-1)
        penalty = np.where(all_matched & (sums[..., 20] == 1), 0.0, _GAMMA * fragments**_BETA)
        return np.asarray(np.nan_to_num(np.maximum(f_mean * (1 - penalty), 0.0)))


class _Jar:
    """The jar as a running process, because it reads its paraphrases for seconds before its first answer."""

    def __init__(self, folder: Path) -> None:
        arguments = [
            "-Xmx2G",
            "-Dfile.encoding=UTF-8",
            "-jar",
            "meteor-1.5.jar",
            "-",
            "-",
            "-stdio",
            "-l",
            "en",
            "-norm",
        ]
        self._process = subprocess.Popen(
            ["java", *arguments],
            cwd=folder / "meteor",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        atexit.register(self._process.kill)

    def ask(self, lines: Sequence[str]) -> list[str]:
        """Return one answer a line; written by a thread, so that neither side waits for the other's full pipe."""
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None

        def write() -> None:
            try:
                into.write("".join(line + "\n" for line in lines))
                into.flush()
            except OSError:  # it died: the answers that are missing say so
                pass

        writer = threading.Thread(target=write)
        writer.start()
        answers = [out.readline() for _ in lines]
        writer.join()
        if "" in answers:
            _jar.cache_clear()
            raise TextsError(
                f"METEOR's jar stopped (exit code {self._process.poll()}); it needs 2 GB of memory for Java"
            )
        return answers


@cache
def _jar() -> _Jar:
    folder = toolkit()
    if (why := java_missing()) or folder is None:
        raise TextsError(why or "pycocoevalcap is not installed")
    return _Jar(folder)


def _plain(text: str) -> str:
    """The text on one line and without the jar's separator."""
    return " ".join(text.replace("|||", " ").split())


def _statistics(lines: Sequence[str], n: int) -> Array:
    try:
        found = np.array([[float(number) for number in line.split()] for line in lines])
    except ValueError as error:
        raise TextsError(f"METEOR's jar wrote {error} where numbers belong; is its Java runtime whole?") from error
    if found.shape != (n, _N_STATISTICS):
        raise TextsError(f"METEOR's jar returned {found.shape} numbers for {n} cases; is pycocoevalcap 1.2 installed?")
    return found
