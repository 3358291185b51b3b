"""Whether a TIFF's chain of directories ends: libraries that follow it would walk a loop for ever.

It reads the links alone, no directory's content.
"""

import struct
from pathlib import Path

_MOST_DIRECTORIES = 4096
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
# version -> (offset of the first link, format of a link, format of a count of entries, bytes of an entry)
_FORMS = {42: (4, "I", "H", 12), 43: (8, "Q", "Q", 20)}


def chain_problem(path: Path) -> str | None:
    """Return what is wrong with the chain of a TIFF, or None where it ends or the file is no TIFF.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(16)
        order = _BYTE_ORDERS.get(start[:2])
        if order is None or len(start) < 16:
            return None
        form = _FORMS.get(struct.unpack_from(order + "H", start, 2)[0])
        if form is None:
            return None
        first, link, counter, entry_bytes = form
        at = struct.unpack_from(order + link, start, first)[0]
        seen: set[int] = set()
        while at:
            if at in seen:
                return f"its directories form a loop at byte {at}"
            if len(seen) == _MOST_DIRECTORIES:
                return f"it has more than {_MOST_DIRECTORIES} directories"
            seen.add(at)
            stream.seek(at)
            head = stream.read(struct.calcsize(counter))
            if len(head) < struct.calcsize(counter):
                return None  # it leads outside the file, and so it ends
            n_entries = struct.unpack(order + counter, head)[0]
            stream.seek(min(at + len(head) + n_entries * entry_bytes, 1 << 62))
            next_link = stream.read(struct.calcsize(link))
            if len(next_link) < struct.calcsize(link):
                return None
            at = struct.unpack(order + link, next_link)[0]
            at = at if at < 1 << 62 else 0
    return None
