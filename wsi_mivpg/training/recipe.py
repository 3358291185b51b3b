"""A training recipe: strictly typed YAML plus ``key.path=value`` overrides. It loads no data and no torch."""

import difflib
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ValidationError

from wsi_mivpg.errors import RecipeError
from wsi_mivpg.training.settings import (
    AlignmentSettings,
    DataSettings,
    ModelSettings,
    OptimSettings,
    Section,
    SelectionSettings,
)


class Recipe(Section):
    """Everything that decides a training, and nothing about the machine it runs on."""

    name: str
    seed: int = 0
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    optim: OptimSettings = OptimSettings()
    selection: SelectionSettings = SelectionSettings()
    precision: Literal["bf16", "fp32"] = "bf16"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides such as ``optim.steps=200``; values are YAML.

    Raises:
        RecipeError: the file cannot be read, an override is malformed, or a key or value is wrong.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    if not isinstance(settings, dict):
        raise RecipeError(f"{path} holds no settings; see docs/training.md for a recipe")
    for override in overrides:
        _apply(settings, override)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, Recipe)}") from error


def as_yaml(recipe: Recipe) -> str:
    """Return the resolved recipe, with every default spelled out; `load_recipe` reads it back to the same."""
    settings = recipe.model_dump(mode="json")
    if recipe.model.from_blip2 is not None:  # what is not stated comes from there
        settings["model"]["mivpg"] = recipe.model.mivpg.model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say each mistake in one line: where, what is wrong, what was given, and the nearest key for an unknown one."""
    return "; ".join(_mistake(dict(one), model) for one in error.errors())


def _mistake(mistake: dict[str, Any], model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] != "extra_forbidden":
        return f"{where}: {mistake['msg']} (given: {mistake['input']!r})"
    return f"{where}: there is no such setting; {_way_out(where, list(keys_of(model)))}"


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every setting and section of a model."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and not isinstance(part, types.GenericAlias) and issubclass(part, BaseModel):
                yield from keys_of(part, f"{prefix}{name}.")


def _way_out(where: str, known: list[str]) -> str:
    """Name the nearest setting: of the same section, else one of the same name elsewhere, else what the section has."""
    section, _, last = where.rpartition(".")
    beside = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == section]
    if near := difflib.get_close_matches(last, beside, n=1, cutoff=0.6):
        return f"did you mean {section + '.' if section else ''}{near[0]}?"
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(known)}
    if near := difflib.get_close_matches(last, elsewhere, n=1, cutoff=0.6):
        return f"did you mean {elsewhere[near[0]]}?"
    return f"{section or 'a recipe'} has {', '.join(beside)}"


def _apply(settings: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    *parents, last = key.strip().split(".")
    if not separator or not last:
        raise RecipeError(f"override {override!r} is not key=value; write for example optim.steps=200")
    section: Any = settings
    for depth, parent in enumerate(parents):
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(f"override {override!r}: {'.'.join(parents[: depth + 1])} is not a section")
    try:
        section[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {override!r}: the value is not YAML") from error
