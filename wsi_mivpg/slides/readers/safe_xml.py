"""Small XML files from strangers: refused where they are large or define entities, which can expand without end."""

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat


def xml_root(path: Path, most_bytes: int) -> ElementTree.Element:
    """Return the root element of an XML file.

    Raises:
        OSError: it cannot be read.
        ValueError: more than `most_bytes`, not well-formed, or with a DOCTYPE.
    """
    with path.open("rb") as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"{path.name} is larger than {most_bytes} bytes")
    # ElementTree does not show a DOCTYPE; expat stops at it before it sees any entity, in every encoding.
    checker = expat.ParserCreate()
    checker.StartDoctypeDeclHandler = _refuse
    try:
        checker.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, LookupError) as error:
        raise ValueError(f"{path.name} is not well-formed XML ({error})") from error


def local_name(element: ElementTree.Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def _refuse(name: str, _system: str | None, _public: str | None, _has_subset: bool) -> None:
    raise ValueError(f"it has a DOCTYPE ({name}), which no slide needs; remove it")
