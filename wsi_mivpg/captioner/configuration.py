"""What a report model is made of, what of it trains, how it writes, and which bags it may read."""

from typing import Any, Literal

from transformers import PreTrainedConfig

from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.baselines import ADAPTERS

HIERARCHICAL = "hierarchical"
KNOWN_ADAPTERS = (*ADAPTERS, HIERARCHICAL)
TRAINS = ("adapter", "lora", "lora-4bit", "full")
DEFAULT_LORA: dict[str, Any] = {"r": 8, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}


class CaptionerConfig(PreTrainedConfig):
    """Configuration of `SlideCaptioner`.

    Args:
        adapter: what turns a bag into the visual prompt: a key of `wsi_mivpg.mivpg.baselines.ADAPTERS`, or
            "hierarchical", which pools each slide first (the paper's third scenario).
        mivpg: arguments of `MivpgConfig`, which the other adapters read too; its ``input_dim`` is the bag's feature
            width.
        language_model: ``"smollm2-135m-instruct"``, a local folder, or a Hugging Face id: a causal or a
            sequence-to-sequence language model, or a BLIP-2, whose language model it is then.
        language_model_revision: its commit on the Hugging Face hub; ``None`` for local folders.
        language_model_sha256: hash of the base weights that this model was trained on.
        trains: ``"adapter"``: adapter and projection alone, as in the paper; ``"lora"``: and low-rank updates of the
            language model; ``"lora-4bit"``: the same over a base held in 4 bits, on CUDA; ``"full"``: everything.
        lora: ``{"r", "alpha", "dropout", "target_modules"}``; `target_modules` is ``"all-linear"`` or names of layers.
            What is not given is as in `DEFAULT_LORA`. Read with LoRA alone.
        prompt: what is asked, after the visual prompt.
        prompt_template: text around the prompt, with ``{prompt}`` in its place. ``None``: the tokenizer's chat template
            if it has one, which is then written here, so that a later tokenizer changes nothing; else the prompt alone.
        max_new_tokens: limit on a report's length in tokens when it is written.
        max_report_tokens: limit on a report's length in tokens, end token included, in training.
        generation: how this model writes unless `generate` is told otherwise: names of Hugging Face's
            ``GenerationConfig`` such as ``num_beams``, ``repetition_penalty``, ``no_repeat_ngram_size``; its
            ``eos_token_id`` is the token that ends a report, in place of the tokenizer's end token.
        max_instances: most instances of a case that are read when a report is written, a fair share of each slide;
            ``None``: all of them.
        encoder, encoder_weights_sha256, feature_dim, target_mpp, tile_px: the contract with bags; a bag with
            other values is refused. ``None`` accepts any.
        tissue: part of the contract too: ``{"segmenter", "min_tissue"}``, how tissue was found and the least share of
            it in a tile. ``None`` accepts any.
        stain: of the slides that it was trained on; others are named in a warning. ``None``: any.
        demonstration: trained on invented data; reports must say so.

    Raises:
        ModelError: an unknown adapter, way of training, LoRA or tissue setting, a template without ``{prompt}``, or a
            limit below 1.
    """

    model_type = "wsi_mivpg_captioner"

    def __init__(
        self,
        adapter: str = "mivpg",
        mivpg: dict[str, Any] | None = None,
        language_model: str = "smollm2-135m-instruct",
        language_model_revision: str | None = None,
        language_model_sha256: str | None = None,
        trains: Literal["adapter", "lora", "lora-4bit", "full"] = "adapter",
        lora: dict[str, Any] | None = None,
        prompt: str = "Describe the tissue.",
        prompt_template: str | None = None,
        max_new_tokens: int = 96,
        max_report_tokens: int = 512,
        generation: dict[str, Any] | None = None,
        max_instances: int | None = None,
        encoder: str | None = None,
        encoder_weights_sha256: str | None = None,
        feature_dim: int | None = None,
        target_mpp: float | None = None,
        tile_px: int | None = None,
        tissue: dict[str, Any] | None = None,
        stain: str | None = "H&E",
        demonstration: bool = False,
        **kwargs: Any,
    ) -> None:
        _one_of("adapter", adapter, KNOWN_ADAPTERS)
        _one_of("trains", trains, TRAINS)
        if unknown := sorted((lora or {}).keys() - DEFAULT_LORA.keys()):
            raise ModelError(f"lora has unknown settings {unknown}; known are {sorted(DEFAULT_LORA)}")
        if tissue is not None and tissue.keys() != {"segmenter", "min_tissue"}:
            raise ModelError(f"tissue has the settings {sorted(tissue)}; it needs segmenter and min_tissue")
        if max_instances is not None and max_instances < 1:
            raise ModelError(f"max_instances is {max_instances}; give 1 or more, or none for all")
        if prompt_template is not None and "{prompt}" not in prompt_template:
            raise ModelError(f"prompt_template {prompt_template!r} has no {{prompt}}; write where the prompt goes")
        if adapter == HIERARCHICAL and (mivpg or {}).get("ppeg") == "grid":
            raise ModelError("the adapter 'hierarchical' reads whole slides, which lie in no grid; set ppeg to 'none'")
        self.adapter = adapter
        self.mivpg = dict(mivpg or {})
        self.language_model = language_model
        self.language_model_revision = language_model_revision
        self.language_model_sha256 = language_model_sha256
        self.trains = trains
        self.lora = {**DEFAULT_LORA, **(lora or {})} if trains.startswith("lora") else None
        self.prompt = prompt
        self.prompt_template = prompt_template
        self.max_new_tokens = max_new_tokens
        self.max_report_tokens = max_report_tokens
        self.generation = dict(generation or {})
        self.max_instances = max_instances
        self.encoder = encoder
        self.encoder_weights_sha256 = encoder_weights_sha256
        self.feature_dim = feature_dim
        self.target_mpp = target_mpp
        self.tile_px = tile_px
        self.tissue = None if tissue is None else dict(tissue)
        self.stain = stain
        self.demonstration = demonstration
        super().__init__(**kwargs)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ModelError(f"{name} is {value!r}; choose from {', '.join(map(repr, known))}")
