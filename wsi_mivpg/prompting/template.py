"""From values to text: a Jinja template that says the same of the same values, in a sandbox: users bring their own."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from wsi_mivpg.errors import PromptError

if TYPE_CHECKING:
    from wsi_mivpg.prompting.schema import Field

GENERIC = (
    "{% for name, value in fields.items() %}"
    "{{ (name | replace('_', ' ') | replace('.', ', ')) | capitalize }}: "
    "{{ 'not assessable' if value is none else value | text }}.{{ '\n' if not loop.last }}"
    "{% endfor %}"
)
"""Of a schema without a template: one line a field."""


def render(name: str, template: str, values: dict[str, Any], fields: dict[str, Any]) -> str:
    """Return the text that a template makes of values.

    Args:
        name: of the schema or of the template's file, for messages.
        template: Jinja text. It knows each top-level value by its name, and all as `fields`, by dotted name.
        values: as the schema nests them.
        fields: the same, by dotted name.

    Raises:
        PromptError: the template is malformed, names what is not there, or does what the sandbox forbids.
    """
    try:
        text = _compiled(template).render({**values, "fields": fields})
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise PromptError(f"the template of {name} cannot be filled: {error}") from error
    return "\n".join(" ".join(line.split()) for line in text.strip().split("\n"))


def check_template(name: str, template: str, fields: "Sequence[Field]") -> None:
    """Refuse a template that is malformed or names what no field is called.

    Raises:
        PromptError: naming the line or the name.
    """
    environment = _environment()
    try:
        named = meta.find_undeclared_variables(environment.parse(template))
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise PromptError(
            f"the template of {name} is malformed{f' in line {line}' if line else ''}: {error}"
        ) from error
    known = {field.path[0] for field in fields} | {"fields"}
    if unknown := sorted(named - known - set(environment.globals)):
        raise PromptError(
            f"the template of {name} names {unknown[0]!r}, which is no field; there are {', '.join(sorted(known))}"
        )


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    """Every case, and every field on its own, is told by the same template."""
    return _environment().from_string(template)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["text"] = _text
    return environment


def _text(value: Any) -> str:
    """Write a value as people do."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items()) or "none"
    return "not assessable" if value is None else str(value)
