"""The sections of a recipe: names, types, ranges and defaults. It reads no file and loads no torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


Paths = Annotated[list[Path], BeforeValidator(_listed)]
"""One path or a list of them."""


class Section(BaseModel):
    """A part of a recipe; what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AdapterSettings(Section):
    """`MivpgConfig` without `input_dim`, which the bags decide. Default sizes are the demonstration's."""

    hidden_size: int = Field(default=256, ge=1)
    num_hidden_layers: int = Field(default=4, ge=1)
    num_attention_heads: int = Field(default=4, ge=1)
    intermediate_size: int = Field(default=1024, ge=1)
    encoder_hidden_size: int = Field(default=256, ge=1)
    cross_attention_frequency: int = Field(default=2, ge=1)
    num_query_tokens: int = Field(default=16, ge=1)
    hidden_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(default=0.0, ge=0, lt=1)
    layer_norm_eps: float = Field(default=1e-12, gt=0)
    initializer_range: float = Field(default=0.02, gt=0)
    csa: bool = True
    csa_position: Literal["pre", "post"] = "pre"
    csa_carry: Literal["cumulative", "reset"] = "cumulative"
    csa_tie_down: bool = False
    csa_layers: list[int] | None = None
    ppeg: Literal["none", "sequence", "grid"] = "none"
    ppeg_order: Literal["before_csa", "after_csa"] = "before_csa"
    absorb_from: int | None = Field(default=4096, ge=1)
    chunk_size: int | None = Field(default=None, ge=1)


class LoraSettings(Section):
    """Sizes of the low-rank updates, where `model.trains` is ``lora`` or ``lora-4bit``."""

    r: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: list[str] | Literal["all-linear"] = ["q_proj", "k_proj", "v_proj", "o_proj"]


class ModelSettings(Section):
    """The adapter, the language model, what of them is trained, and what the model is asked."""

    adapter: Literal[
        "mivpg", "qformer", "mean_mlp", "gated_abmil", "perceiver", "full_self_attention", "hierarchical"
    ] = "mivpg"
    mivpg: AdapterSettings = AdapterSettings()
    language_model: str = "smollm2-135m-instruct"
    language_model_revision: str | None = None
    from_blip2: str | None = None
    """Folder or id of a BLIP-2 whose Q-Former, projection and language model are the start; `language_model` is then
    not used, and of `mivpg` only what the recipe states."""
    trains: Literal["adapter", "lora", "lora-4bit", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    prompt: str = "Describe the tissue."
    prompt_template: str | None = None
    """A text with ``{prompt}``; without one the tokenizer's chat template, or the bare prompt where it has none."""
    max_new_tokens: int = Field(default=96, ge=1)
    max_report_tokens: int = Field(default=512, ge=2)
    """A longer training report is refused, never cut. The end token counts."""
    generation: dict[str, Any] = {}
    """How this model writes unless it is asked otherwise: arguments of Hugging Face's `GenerationConfig`."""
    max_instances: int | None = Field(default=None, ge=1)
    """Most instances of a case that the model reads when it writes, a fair share of each slide; none for all."""
    stain: str | None = "H&E"
    """Of the slides; the model warns of others where a manifest names them. None: any."""
    demonstration: bool = False


class ReportSettings(Section):
    """How reports are prepared before training; `wsi-mivpg cohorts prepare` does the same and shows the differences."""

    drop: list[str] = []
    """Sections that H&E cannot support: gross, history, ihc."""
    letter_case: Literal["keep", "sentence", "lower"] = "keep"


class DataSettings(Section):
    """Cases: manifests, virtual cohorts, or both."""

    manifest: Paths = []
    cohorts: list[dict[str, Any]] = []
    """Virtual cohorts; each validated by the cohorts room when it is composed."""
    encoder: str = "efficientnet-lite0"
    """What slides without bags are extracted with."""
    reports: ReportSettings | None = None
    """How reports are prepared; without it they are taken as they are."""
    max_instances: int | None = Field(default=None, ge=1)
    """Most instances of a case in a training step, drawn anew each epoch, fairly over slides. Evaluation uses all."""
    on_leak: Literal["refuse", "warn"] = "refuse"


class AlignmentSettings(Section):
    """The first stage: the adapter alone, on the words of the reports. Zero steps leave it out."""

    steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    instance_dropout: float = Field(default=0.5, ge=0, lt=1)


class OptimSettings(Section):
    """How it is trained: AdamW with a warm-up. The batch size is per process and before accumulation."""

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    gradient_checkpointing: bool = False
    lr_adapter: float = Field(default=5e-4, gt=0)
    lr_language: float = Field(default=5e-4, gt=0)
    """Learning rate of the projection, and of LoRA or of the whole language model."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    """Of matrices; biases, norms and other vectors are not decayed."""
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_ratio: float | None = Field(default=None, ge=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    instance_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Greatest share of a bag's instances that a step leaves out; drawn uniformly from 0 to this."""
    save_every: int = Field(default=200, ge=1)
    """Steps between checkpoints: what a killed run loses at most."""

    @model_validator(mode="after")
    def _one_of_each_pair(self) -> "OptimSettings":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give warmup_steps or warmup_ratio, not both")
        return self


class SelectionSettings(Section):
    """Which step's weights become the model: the best by a metric on the cases of split ``val``.

    All but ``loss`` are metrics of reports that the model writes.
    """

    metric: Literal["loss", "cider", "rouge_l", "bleu_4", "fields"] = "loss"
    every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; as often as checkpoints where not given."""
    max_cases: int | None = Field(default=None, ge=1)
    """Write reports for so many cases of the split, always the same ones. The loss is of all."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many evaluations without a better value."""
