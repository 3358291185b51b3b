"""All values that a schema allows, where they can be counted: enumerations, booleans, short ranges of whole numbers."""

import json
from typing import Any

from wsi_mivpg.errors import PromptError

MOST = 101
"""Whole numbers of a range that are still listed: 0 to 100, as percentages go."""
_ANNOTATIONS = {"title", "description", "$comment", "examples", "default"}


def closed_values(part: Any, schema: dict[str, Any], where: str) -> tuple[Any, ...] | None:
    """Return every value of a field, null the last; None where they cannot be counted.

    Args:
        part: what the file says of the field.
        schema: the same with null and the file's definitions, under which values are checked.
        where: of messages.

    Raises:
        PromptError: the schema allows no value, refers to what is not there, or cannot be checked.
    """
    import jsonschema
    import referencing.exceptions

    listed = _listed(part, schema, where)
    if listed is None:
        return None
    once = {json.dumps(value, sort_keys=True): value for value in listed if value is not None}
    validator = jsonschema.Draft202012Validator(schema)
    try:
        values = [value for value in once.values() if validator.is_valid(value)]
    except referencing.exceptions.Unresolvable as error:
        raise PromptError(f"{where}: {error}") from error
    if not values:
        raise PromptError(f"{where} allows no value; look at its enum and at what else it asks")
    return (*values, None)


def resolved(part: Any, root: dict[str, Any], where: str) -> Any:
    """Return what a schema says once its ``$ref`` into the same file is followed.

    Raises:
        PromptError: the reference leads elsewhere, nowhere or in a circle.
    """
    seen = set()
    while isinstance(part, dict) and "$ref" in part and not part.keys() - _ANNOTATIONS - {"$ref"}:
        reference = part["$ref"]
        if not reference.startswith("#/") or reference in seen:
            raise PromptError(
                f"{where}: $ref {reference!r} must lead to a definition in the same file, as #/$defs/name"
            )
        seen.add(reference)
        part = root
        for step in reference[2:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(part, dict) or name not in part:
                raise PromptError(f"{where}: $ref {reference!r} leads nowhere; write it under $defs")
            part = part[name]
    return part


def _listed(part: Any, root: dict[str, Any], where: str) -> list[Any] | None:
    """Return a list that holds every allowed value, and perhaps others."""
    part = resolved(part, root, where)
    if not isinstance(part, dict):
        return None
    if "const" in part:
        return [part["const"]]
    if "enum" in part:
        return list(part["enum"])
    for keyword in ("anyOf", "oneOf"):
        if keyword in part:
            lists = [_listed(one, root, where) for one in part[keyword]]
            known = [one for one in lists if one is not None]
            return [value for one in known for value in one] if len(known) == len(lists) else None
    kinds = part.get("type")
    lists = [_of_type(kind, part) for kind in ([kinds] if isinstance(kinds, str) else kinds or ["any"])]
    known = [one for one in lists if one is not None]
    return [value for one in known for value in one] if len(known) == len(lists) else None


def _of_type(kind: str, part: dict[str, Any]) -> list[Any] | None:
    if kind == "boolean":
        return [True, False]
    if kind == "null":
        return [None]
    if kind == "integer" and {"minimum", "maximum"} <= part.keys():
        first, last = part["minimum"], part["maximum"]
        if first == int(first) and last == int(last) and last - first < MOST:
            return list(range(int(first), int(last) + 1))
    return None
