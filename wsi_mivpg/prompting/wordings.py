"""Values in the words of reports: a sentence with a place for each field, and the wordings of each field's values.

A model that was taught reports knows its own sentences and no JSON; asked in them, it answers as it was taught.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from wsi_mivpg.errors import PromptError

SENTENCE, WORDINGS = "x-report", "x-wordings"
NOT_ASSESSABLE = "not assessable"
_PLACE = re.compile(r"\{([^{}]*)\}")


def sentence_of(document: dict[str, Any], names: Sequence[str], where: str) -> str | None:
    """Return the sentence that a schema's fields stand in, or None where they are asked for as JSON.

    Raises:
        PromptError: it is no text, does not end in a full stop, or does not name every field once, in the order of the
            schema, with something between them.
    """
    sentence = document.get(SENTENCE)
    if sentence is None:
        return None
    if not isinstance(sentence, str) or not sentence.endswith("."):
        raise PromptError(f"{where}: {SENTENCE} must be a sentence with a full stop at its end")
    found = _PLACE.findall(sentence)
    if found != list(names):
        raise PromptError(
            f"{where}: {SENTENCE} names {', '.join(found) or 'nothing'}; it must name {', '.join(names)}, in this order"
        )
    if not all(text.strip() for text in _PLACE.split(sentence)[2:-1:2]):
        raise PromptError(f"{where}: {SENTENCE} needs words or signs between its fields, where a value ends")
    return sentence


def around(sentence: str) -> list[str]:
    """Return the text before the first field, between each two, and after the last."""
    return _PLACE.split(sentence)[::2]


def wordings_of(given: Any, values: Sequence[Any], where: str) -> tuple[tuple[str, ...], ...]:
    """Return how each value may be worded; the value itself where nothing else is said.

    Args:
        given: what the schema says of the field.
        values: null the last.
        where: of messages.

    Raises:
        PromptError: wordings are not lists of texts, or of values that there are not.
    """
    stated = given.get(WORDINGS, {}) if isinstance(given, dict) else {}
    plain = [value if isinstance(value, str) else json.dumps(value) for value in values[:-1]]
    lists = stated.values() if isinstance(stated, dict) else [None]
    if not all(isinstance(one, list) and one and all(isinstance(text, str) and text for text in one) for one in lists):
        raise PromptError(f'{where}: {WORDINGS} must hold a list of texts for each value, as {{"benign": ["benign"]}}')
    if unknown := sorted(stated.keys() - {*plain, "null"}):
        raise PromptError(f"{where}: {WORDINGS} words {unknown[0]!r}, which is no value; there are {', '.join(plain)}")
    null = tuple(stated.get("null", [NOT_ASSESSABLE]))
    return (*(tuple(dict.fromkeys(stated.get(name, [name]))) for name in plain), null)
