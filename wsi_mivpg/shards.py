"""Lists of a cohort's slides or cases, one for each job of a workflow.

An item stays in the shard that it was first given, so that adding some makes new shards and leaves the others, down to
their files' times, as they were. What an item is, and how a list of them is written, is the caller's matter.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wsi_mivpg.errors import OutputError


def assign(ids: Sequence[str], before: Mapping[str, Sequence[str]], size: int) -> dict[str, list[str]]:
    """Return shard name -> ids: known ones where they were, new ones in new shards of at most `size`.

    Args:
        ids: all that there is now, each once, in the order in which new ones are taken.
        before: shard name -> ids of an earlier call. Those that are no more are left out; an empty shard vanishes.
        size: of new shards; those that there are keep theirs.
    """
    there = set(ids)
    kept = {name: [one for one in inside if one in there] for name, inside in before.items()}
    shards = {name: inside for name, inside in sorted(kept.items()) if inside}
    known = {one for inside in shards.values() for one in inside}
    new = [one for one in ids if one not in known]
    first = 1 + max((int(name) for name in before), default=0)
    for number, start in enumerate(range(0, len(new), size), first):
        shards[f"{number:04d}"] = new[start : start + size]
    return shards


def keep_shards(
    folder: Path,
    suffix: str,
    ids: Sequence[str],
    size: int,
    read_ids: Callable[[Path], Sequence[str]],
    write: Callable[[Path, Sequence[str]], None],
) -> dict[str, list[str]]:
    """Bring a folder's lists up to date, ``0001<suffix>`` and so on; one whose content stays keeps its time.

    Args:
        folder: of the lists; nothing else in it has digits for a name.
        suffix: of a list, such as ".csv".
        ids: all items, each once.
        size: of new shards.
        read_ids: returns the ids of an earlier list.
        write: writes the list of these ids to a path in the folder.

    Returns:
        Shard name -> ids.

    Raises:
        OutputError: the folder cannot be written.
    """
    lists = {path.stem: path for path in folder.glob(f"*{suffix}") if path.stem.isdigit()}
    shards = assign(ids, {name: read_ids(path) for name, path in lists.items()}, size)
    try:
        for name, inside in shards.items():
            _replace_if_changed(folder / f"{name}{suffix}", inside, write)
        for name in lists.keys() - shards.keys():
            lists[name].unlink()
    except OSError as error:
        raise OutputError(f"cannot write in {folder}: {error.strerror}; choose another --out") from error
    return shards


def _replace_if_changed(path: Path, ids: Sequence[str], write: Callable[[Path, Sequence[str]], None]) -> None:
    new = path.with_name(f".new.{path.name}")
    try:
        write(new, ids)
        if not path.is_file() or path.read_bytes() != new.read_bytes():
            os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
