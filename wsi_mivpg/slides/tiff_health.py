"""What no library survives in a damaged TIFF, directories that form a loop and tiles larger than memory; and cut files.

It reads the directories' links and the sizes of tiles, nothing else.
"""

import struct
from pathlib import Path
from typing import NamedTuple

_MOST_DIRECTORIES = 4096
_MOST_ENTRIES = 4096
_LARGEST_TILE_PX = 1 << 26
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_INTEGERS = {3: "H", 4: "I", 16: "Q"}


class _Form(NamedTuple):
    """A layout of TIFF: where the first link is, and formats (for `struct`) of a link, a count and an entry's start."""

    first: int
    link: str
    counter: str
    entry_bytes: int
    entry_head: str


_FORMS = {42: _Form(4, "I", "H", 12, "HHI"), 43: _Form(8, "Q", "Q", 20, "HHQ")}
# A classic TIFF whose links are wide, so that it can be larger than 4 GB.
_LARGE_NDPI = _Form(4, "Q", "H", 12, "HHI")


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF or BigTIFF does.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return _form_of(stream.read(4)) is not None


def tiff_problem(path: Path) -> str | None:
    """Return what is wrong with a TIFF's directories, or None where nothing is or the file is no TIFF.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(16)
        found = _form_of(start)
        if found is None or len(start) < 16:
            return None
        order, form = found
        if path.suffix.lower() == ".ndpi" and form is _FORMS[42] and path.stat().st_size >= 1 << 32:
            form = _LARGE_NDPI
        link_bytes, count_bytes = struct.calcsize(form.link), struct.calcsize(form.counter)
        at = int(struct.unpack_from(order + form.link, start, form.first)[0])
        seen: set[int] = set()
        while 0 < at < 1 << 62:
            if at in seen:
                return f"its directories form a loop at byte {at}"
            if len(seen) == _MOST_DIRECTORIES:
                return f"it has more than {_MOST_DIRECTORIES} directories"
            seen.add(at)
            stream.seek(at)
            head = stream.read(count_bytes)
            if len(head) < count_bytes and len(seen) == 1:
                return f"its first directory, at byte {at}, is missing: the file ends before"
            if len(head) < count_bytes:
                return None  # it leads outside the file, and so it ends
            n_entries = int(struct.unpack(order + form.counter, head)[0])
            if n_entries > _MOST_ENTRIES:
                return f"a directory of {n_entries} entries"
            entries = stream.read(n_entries * form.entry_bytes + link_bytes)
            if len(entries) < n_entries * form.entry_bytes + link_bytes:
                return None
            if problem := _tile_problem(entries, n_entries, order, form):
                return problem
            at = int(struct.unpack_from(order + form.link, entries, n_entries * form.entry_bytes)[0])
    return None


def _form_of(start: bytes) -> tuple[str, _Form] | None:
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 4:
        return None
    form = _FORMS.get(struct.unpack_from(order + "H", start, 2)[0])
    return None if form is None else (order, form)


def _tile_problem(entries: bytes, n_entries: int, order: str, form: _Form) -> str | None:
    """Return what is wrong with the tile size that a directory states."""
    sides = {_TILE_WIDTH: 1, _TILE_LENGTH: 1}
    for index in range(n_entries):
        at = index * form.entry_bytes
        tag, kind, _ = struct.unpack_from(order + form.entry_head, entries, at)
        if tag in sides and kind in _INTEGERS:
            value_at = at + struct.calcsize(order + form.entry_head)
            room = form.entry_bytes - struct.calcsize(order + form.entry_head)
            if struct.calcsize(_INTEGERS[kind]) <= room:
                sides[tag] = int(struct.unpack_from(order + _INTEGERS[kind], entries, value_at)[0])
    width, height = sides.values()
    return None if 0 < width * height <= _LARGEST_TILE_PX else f"tiles of {width}x{height} px"
