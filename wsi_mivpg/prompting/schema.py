"""Fields of a structured report: a JSON Schema, read, checked, and taken apart into the values that are to be found.

Shipped schemas lie in `schemas/`, each beside the template that makes a text of its values. No model is needed here.
"""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from wsi_mivpg.atomic import canonical_hash
from wsi_mivpg.errors import PromptError
from wsi_mivpg.prompting.closed_values import closed_values, resolved
from wsi_mivpg.prompting.template import GENERIC, check_template
from wsi_mivpg.prompting.wordings import SENTENCE, around, sentence_of, wordings_of

SHIPPED = ("biopsy", "resection", "virtual-biopsy")
NULL = {"type": "null"}
_IN_A_GROUP = {
    *("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "examples", "type", "properties"),
    *("required", "additionalProperties"),
}
"""Keywords that an object of fields may have: the fields are all written, in the order of `properties`."""


@dataclass(frozen=True, eq=False)
class Field:
    """One value that is to be found.

    Attributes:
        path: its names, from the outermost object inwards.
        schema: what it may be, null included; with the definitions that it refers to.
        values: all that it may be, null the last; None where they cannot be counted.
        wordings: of each of `values`, how it may be written.
        description: of the schema, for the prompt.
    """

    path: tuple[str, ...]
    schema: dict[str, Any]
    values: tuple[Any, ...] | None
    wordings: tuple[tuple[str, ...], ...]
    description: str

    @property
    def name(self) -> str:
        """Its names with dots between them."""
        return ".".join(self.path)


@dataclass(frozen=True, eq=False)
class FieldSchema:
    """A schema that can be filled.

    Attributes:
        name: of a shipped one, or its file's path.
        document: as given.
        nullable: the same with null allowed in every field; what is filled in is valid under it.
        fields: in the order in which they are written.
        template: Jinja text that makes a report of the values.
        sentence: of the model's own reports, with the fields in it, where they are asked for so; else JSON is.
    """

    name: str
    document: dict[str, Any]
    nullable: dict[str, Any]
    fields: tuple[Field, ...]
    template: str
    sentence: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the document and the template, which decide what is written."""
        return canonical_hash([self.document, self.template])

    def prompt(self, own: str) -> str:
        """Return what a model is asked: its own prompt, and where it is to answer in JSON, which fields."""
        if self.sentence is not None:
            return own
        lines = [f"- {field.name}{f': {field.description}' if field.description else ''}" for field in self.fields]
        return "\n".join([own, "Answer as JSON with these fields, null where something cannot be told:", *lines])


def load_schema(name_or_file: str | Path, template: Path | None = None) -> FieldSchema:
    """Load a shipped schema, or one of the user's own.

    Args:
        name_or_file: ``"biopsy"``, ``"resection"``, ``"virtual-biopsy"``, or a ``.json`` file.
        template: a Jinja file. Default: of the same name beside the schema with the suffix ``.jinja``; where there is
            none, a list of all fields.

    Raises:
        PromptError: there is no such schema, it is no JSON Schema of an object with properties, it uses what is not
            supported, or the template is malformed or names other fields.
    """
    name = str(name_or_file)
    if name in SHIPPED:
        folder = resources.files("wsi_mivpg.prompting") / "schemas"
        text = (folder / f"{name}.json").read_text(encoding="utf-8")
        wording = (folder / f"{name}.jinja").read_text(encoding="utf-8")
    else:
        path = Path(name_or_file)
        if path.suffix.lower() != ".json" and not path.is_file():
            raise PromptError(f"{name!r} is no schema: give {', '.join(SHIPPED)}, or a JSON Schema as a .json file")
        text, beside = _read(path), path.with_suffix(".jinja")
        wording = _read(beside) if beside.is_file() else GENERIC
    if template is not None:
        wording = _read(template)
    schema = parse_schema(name, text, wording)
    check_template(schema.name if template is None else str(template), wording, schema.fields)
    return schema


def parse_schema(name: str, text: str, template: str = GENERIC) -> FieldSchema:
    """Read a schema's text; see `load_schema`."""
    _need_libraries()
    import jsonschema

    try:
        document = json.loads(text)
    except ValueError as error:
        raise PromptError(f"{name} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise PromptError(f"{name}: a schema is a JSON object with properties; this is {type(document).__name__}")
    try:
        jsonschema.Draft202012Validator.check_schema(document)
    except jsonschema.SchemaError as error:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise PromptError(f"{name}: at {place}: {error.message}; see https://json-schema.org") from error
    fields: list[Field] = []
    nullable = {**document, "properties": _group(name, document, document, (), fields)}
    sentence = sentence_of(document, [field.name for field in fields], name)
    if sentence is not None and (uncounted := [field.name for field in fields if field.values is None]):
        raise PromptError(
            f"{name}: field {uncounted[0]}: with {SENTENCE}, every field needs values that can be counted"
        )
    return FieldSchema(name, document, nullable, tuple(fields), template, sentence)


def literals(schema: FieldSchema) -> list[str]:
    """Return the text around the values: before the first, between each two, and after the last."""
    if schema.sentence is not None:
        return around(schema.sentence)
    texts, before = [], ""
    for inside in _walk(schema.fields):
        if isinstance(inside, str):
            before += inside
        else:
            texts.append(before)
            before = ""
    return [*texts, before]


def as_json(value: Any) -> str:
    """Return a value as it is written behind its name."""
    return json.dumps(value, ensure_ascii=False)


def nested(schema: FieldSchema, values: list[Any]) -> dict[str, Any]:
    """Return values, one a field, as the object that the schema describes."""
    whole: dict[str, Any] = {}
    for field, value in zip(schema.fields, values, strict=True):
        inside = whole
        for name in field.path[:-1]:
            inside = inside.setdefault(name, {})
        inside[field.path[-1]] = value
    return whole


def _walk(fields: tuple[Field, ...]) -> Iterator[str | Field]:
    """Yield JSON text and fields in the order in which they stand."""
    open_groups: tuple[str, ...] = ()
    yield "{"
    first = True
    for field in fields:
        groups = field.path[:-1]
        shared = next((n for n, (a, b) in enumerate(zip(open_groups, groups, strict=False)) if a != b), None)
        depth = min(len(open_groups), len(groups)) if shared is None else shared
        yield "}" * (len(open_groups) - depth)
        if not first:
            yield ", "
        for group in groups[depth:]:
            yield f"{as_json(group)}: {{"
        yield f"{as_json(field.path[-1])}: "
        yield field
        open_groups, first = groups, False
    yield "}" * (len(open_groups) + 1)


def _group(
    name: str, root: dict[str, Any], group: dict[str, Any], path: tuple[str, ...], fields: list[Field]
) -> dict[str, Any]:
    """Collect the fields of an object, and return its properties with null allowed in each field."""
    place = ".".join(path) or "the top"
    if group.get("type") != "object" or not isinstance(group.get("properties"), dict) or not group["properties"]:
        raise PromptError(f'{name}: at {place}: a group of fields needs "type": "object" and "properties"')
    for keyword in group:
        if keyword not in _IN_A_GROUP and not keyword.startswith("x-"):
            raise PromptError(
                f"{name}: at {place}: {keyword!r} is not supported on an object of fields; say what each field may be, "
                "and check what belongs together in the result"
            )
    properties = {}
    for key, given in group["properties"].items():
        here = (*path, key)
        if not key or "." in key:
            raise PromptError(f"{name}: {key!r} cannot be a field's name: it is empty or has a dot in it")
        if len(here) > 8:
            raise PromptError(f"{name}: {'.'.join(here)} is deeper than 8 groups; does a $ref lead to itself?")
        part = resolved(given, root, f"{name}: field {'.'.join(here)}")
        if isinstance(part, dict) and "properties" in part:
            properties[key] = {**part, "properties": _group(name, root, part, here, fields)}
        else:
            field = _field(name, root, given, here)
            fields.append(field)
            properties[key] = {key: value for key, value in field.schema.items() if key not in ("$defs", "definitions")}
    return properties


def _field(name: str, root: dict[str, Any], given: Any, path: tuple[str, ...]) -> Field:
    where = f"{name}: field {'.'.join(path)}"
    schema = {"anyOf": [given, NULL]} | {key: root[key] for key in ("$defs", "definitions") if key in root}
    values = closed_values(given, schema, where)
    description = given.get("description") or given.get("title") or "" if isinstance(given, dict) else ""
    wordings: tuple[tuple[str, ...], ...] = ()
    if values is not None:
        in_words = SENTENCE in root
        wordings = wordings_of(given, values, where) if in_words else tuple((as_json(value),) for value in values)
    field = Field(path, schema, values, wordings, " ".join(description.split()))
    if values is None:
        from wsi_mivpg.prompting.grammar import check_grammar

        check_grammar(schema, where)
    return field


def _need_libraries() -> None:
    for library in ("jsonschema", "llguidance"):
        if importlib.util.find_spec(library) is None:
            raise PromptError(f"structured fields need {library}; run: pip install 'wsi-mivpg[structured]'")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"cannot read {path}: {error}") from error
