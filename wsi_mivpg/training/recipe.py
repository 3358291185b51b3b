"""A training recipe: strictly typed YAML plus ``key.path=value`` overrides. It loads no data and no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsi_mivpg.errors import RecipeError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AdapterSettings(_Section):
    """Sizes of the adapter; the defaults are the demonstration's."""

    hidden_size: int = Field(default=256, ge=1)
    num_hidden_layers: int = Field(default=4, ge=1)
    num_attention_heads: int = Field(default=4, ge=1)
    intermediate_size: int = Field(default=1024, ge=1)
    encoder_hidden_size: int = Field(default=256, ge=1)
    cross_attention_frequency: int = Field(default=2, ge=1)
    num_query_tokens: int = Field(default=16, ge=1)
    hidden_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    initializer_range: float = Field(default=0.02, gt=0)
    attention_probs_dropout_prob: float = Field(default=0.0, ge=0, lt=1)
    csa: bool = True
    csa_carry: Literal["cumulative", "reset"] = "cumulative"


class LoraSettings(_Section):
    """Low-rank updates of the language model."""

    r: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj"]


class ModelSettings(_Section):
    """The adapter, the language model, and what it is asked. ``lora: null`` trains the adapter alone."""

    mivpg: AdapterSettings = AdapterSettings()
    language_model: str = "smollm2-135m-instruct"
    lora: LoraSettings | None = LoraSettings()
    prompt: str = "Describe the tissue."
    max_new_tokens: int = Field(default=96, ge=1)
    demonstration: bool = False


class AlignmentSettings(_Section):
    """The first stage: the adapter alone, on the words of the reports. Zero steps leave it out."""

    steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    instance_dropout: float = Field(default=0.5, ge=0, lt=1)


class OptimSettings(_Section):
    """How it is trained: AdamW, linear warm-up, cosine decay to zero. The projection learns as fast as LoRA."""

    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=8, ge=1)
    lr_adapter: float = Field(default=5e-4, gt=0)
    lr_lora: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=50, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    instance_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Greatest share of a bag's instances that a step leaves out; drawn uniformly from 0 to this."""
    save_every: int = Field(default=200, ge=1)


class Recipe(_Section):
    """Everything that decides a training, and nothing about the machine it runs on."""

    name: str
    seed: int = 0
    cohorts: list[dict[str, Any]] = []
    """Each validated by the cohorts room when it is built."""
    encoder: str = "efficientnet-lite0"
    model: ModelSettings = ModelSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    optim: OptimSettings = OptimSettings()
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
        raise RecipeError(f"{path} holds no settings; see docs/user-guide.md for a recipe")
    for override in overrides:
        _apply(settings, override)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_plain(error)}") from error


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


def _plain(error: ValidationError) -> str:
    """One line per mistake: where, what is wrong, what was given."""
    return "; ".join(
        f"{'.'.join(str(part) for part in mistake['loc'])}: {mistake['msg']} (given: {mistake['input']!r})"
        for mistake in error.errors()
    )
