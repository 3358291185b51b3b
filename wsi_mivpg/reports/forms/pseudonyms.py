"""A report under pseudonyms: keyed hashes (HMAC-SHA256) for the ids of its case, slides and DICOM instances.

The same key gives the same pseudonyms in every run and on every machine. Places of files, and hashes of files that
somebody could compare with their own, are dropped. This is no anonymisation: the text, the times and the sizes stay.
"""

import hashlib
import hmac
import re
import unicodedata
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from wsi_mivpg.errors import OutputError
from wsi_mivpg.reports.html import file_name
from wsi_mivpg.reports.report import Report

LEAST_KEY_BYTES = 32
_WAY_OUT = "make a key with `openssl rand -hex 32 > KEYFILE`, and keep it secret"
_BLACK = "█"
_PATH = re.compile(r"(?<![\w.\]])(?:[a-z][\w+.-]*://|~?/|[A-Za-z]:[\\/]|\.\.?/)[^\s,;'\"<>|]+", re.IGNORECASE)
_DROPPED = frozenset({"path", "bag", "bag_sha256", "evidence", "settings_hash", "token_ids"})
_KEPT = frozenset({"schema_version", "versions", "disclaimer", "method", "mpp_source", "reader"})


def read_key(path: Path) -> bytes:
    """Return the key in a file; white space around it does not count.

    Raises:
        OutputError: there is no such file, or the key is too short to be safe.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise OutputError(f"{path}: cannot read the key ({error.strerror}); {_WAY_OUT}") from error
    if len(key) < LEAST_KEY_BYTES:
        raise OutputError(f"{path}: a key of {len(key)} bytes, and at least {LEAST_KEY_BYTES} are needed; {_WAY_OUT}")
    if len(set(key)) < 8:
        raise OutputError(f"{path}: the key repeats {len(set(key))} characters and can be guessed; {_WAY_OUT}")
    return key


def pseudonym(key: bytes, original: str) -> str:
    """Return "p" and 20 hexadecimal digits (80 bits of the keyed hash)."""
    return f"p{hmac.new(key, original.encode(), hashlib.sha256).hexdigest()[:20]}"


def pseudonymous_uid(key: bytes, uid: str) -> str:
    """Return a UID below 2.25, as PS3.5 B.2 has it for 128-bit numbers."""
    return f"2.25.{int.from_bytes(hmac.new(key, uid.encode(), hashlib.sha256).digest()[:16])}"


def pseudonymised(report: Report, key: bytes) -> Report:
    """Return the report under pseudonyms.

    Ids go wherever they stand as words of their own, in either case of letters: in warnings, prompts and the model's
    name too. In the text itself, whose characters are counted, they are blacked out, letter by letter.
    """
    swap = Hiding(report, key)
    data = swap.applied(report.model_dump(mode="json", exclude={"text", "sentences"}))
    text = swap.blacked(report.text)
    sentences = []
    for sentence in report.sentences:
        shown = swap.applied(sentence.model_dump(mode="json", exclude={"text"}))
        sentences.append({**shown, "text": text[sentence.start : sentence.end]})
    return Report.model_validate({**data, "text": text, "sentences": sentences})


class Hiding:
    """Knows a report's ids and files, and hides them in any text that belongs to it."""

    def __init__(self, report: Report, key: bytes) -> None:
        self._key = key
        tiles = [*report.top_tiles, *(tile for sentence in report.sentences for tile in sentence.top_tiles)]
        slides = [*(slide.slide_id for slide in report.slides), *(tile.slide_id for tile in tiles)]
        self._hidden = {form: pseudonym(key, one) for one in (report.case_id, *slides) for form in _forms(one)}
        places = [place for slide in report.slides for place in (slide.path, slide.bag) if place]
        # Longest first, so that an id that is part of another does not leave the rest of it behind.
        self._places = sorted({name for place in places for name in _names(place)}, key=len, reverse=True)
        words = "|".join(re.escape(one) for one in sorted(self._hidden, key=len, reverse=True))
        self._ids = re.compile(rf"(?<![0-9A-Za-z])(?:{words})(?![0-9A-Za-z])", re.IGNORECASE) if words else None
        self._by_lower = {form.lower(): hidden for form, hidden in self._hidden.items()}

    def applied(self, value: Any, name: str = "") -> Any:
        """Return JSON-like data with everything hidden that is to be; `name` is the member that it is of."""
        if name in _KEPT:
            return value
        if name in _DROPPED:
            return [] if isinstance(value, list) else None
        if isinstance(value, dict):
            return {key: self.applied(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [self.applied(one) for one in value]
        if not isinstance(value, str):
            return value
        if name == "created" and _is_time(value):
            return value
        if name.endswith("_uid"):
            return pseudonymous_uid(self._key, value)
        if name in ("case_id", "slide_id"):
            return pseudonym(self._key, value)
        return self.in_words(_last_part(value) if name == "name" else value)

    def in_words(self, text: str) -> str:
        """Return a message without places of files, and with pseudonyms for ids."""
        for place in self._places:
            text = text.replace(place, "[file]")
        if self._ids is not None:
            text = self._ids.sub(lambda found: self._by_lower.get(found[0].lower(), "[id]"), text)
        return _PATH.sub("[file]", text)

    def blacked(self, text: str) -> str:
        """Return a text of the same length, without ids."""
        return text if self._ids is None else self._ids.sub(lambda found: _BLACK * len(found[0]), text)


def _forms(original: str) -> set[str]:
    """Return how an id may stand in files' names and in text."""
    stem = Path(file_name(original)).stem
    forms = {original, original.strip(), stem}
    if stem != original:
        forms.add(stem.rpartition("-")[0])  # without the hash that tells it from others
    forms |= {unicodedata.normalize(kind, one) for one in forms for kind in ("NFC", "NFD")}
    return (forms - {"case"} | {original}) - {""}


def _names(place: str) -> set[str]:
    """Return what a file may be called in a message: its whole place, its folder, its name."""
    path = (PureWindowsPath if "\\" in place else PurePosixPath)(place)
    folder = str(path.parent)
    return {place, path.name} | ({folder} if len(path.parent.parts) > 1 else set())


def _is_time(text: str) -> bool:
    try:
        return bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def _last_part(name: str) -> str:
    """Return a model's name without the folders before it; "owner/name" of the hub stays."""
    is_place = name.startswith(("/", "~", ".")) or "\\" in name or name.count("/") > 1
    return re.split(r"[\\/]", name.rstrip("\\/"))[-1] if is_place else name
