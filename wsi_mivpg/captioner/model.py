"""SlideCaptioner: bags through the adapter and a projection into a language model that reads embeddings.

Only what trains is saved and loaded; the base comes from `language_models`. How sequences are put together is said in
`sequences`, how reports are written in `generation`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import CausalLMOutput, Seq2SeqLMOutput

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner.configuration import HIERARCHICAL, CaptionerConfig
from wsi_mivpg.captioner.contract import refuse_other_bags
from wsi_mivpg.captioner.generated import Generated
from wsi_mivpg.captioner.generation import base_end_ids, forget_generation_defaults, generate
from wsi_mivpg.captioner.inputs import CaseBags, read_case
from wsi_mivpg.captioner.language_models import find_language_model, load_language_model
from wsi_mivpg.captioner.saving import find_model, read_config, read_trained, write_model
from wsi_mivpg.captioner.sequences import (
    Wording,
    chat_template,
    check_length,
    join_prompts,
    report_logits,
    report_loss,
    start_like_tokens,
)
from wsi_mivpg.captioner.trainable import autocast_to_base, make_trainable, recompute_layers, set_mode
from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, MivpgModel
from wsi_mivpg.mivpg.baselines import ADAPTERS
from wsi_mivpg.mivpg.chunks import Bag, as_tensor
from wsi_mivpg.mivpg.scenarios import HierarchicalMivpg

Base = tuple[PreTrainedModel, PreTrainedTokenizerBase]


class SlideCaptioner(PreTrainedModel):
    """An adapter (`mivpg`, whichever the configuration names), a linear projection, and a language model."""

    config_class = CaptionerConfig
    base_model_prefix = "captioner"
    main_input_name = "instances"
    supports_gradient_checkpointing = True
    config: CaptionerConfig

    def __init__(
        self, config: CaptionerConfig, language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(config)
        self.tokenizer = tokenizer
        adapter = MivpgConfig(**config.mivpg)
        self.mivpg = HierarchicalMivpg(adapter) if config.adapter == HIERARCHICAL else ADAPTERS[config.adapter](adapter)
        embedding = cast(nn.Embedding, language_model.get_input_embeddings())
        self.language_projection = nn.Linear(adapter.hidden_size, embedding.embedding_dim)
        start_like_tokens(self.language_projection, language_model)
        self.language_model = make_trainable(language_model, config)
        encoder_decoder = bool(language_model.config.is_encoder_decoder)
        if config.prompt_template is None and not encoder_decoder:
            config.prompt_template = chat_template(tokenizer)
        end = config.generation.get("eos_token_id", tokenizer.eos_token_id)
        self.end_id = int(end[0] if isinstance(end, list) else end)
        self.wording = Wording(
            tokenizer, config.prompt_template, encoder_decoder, self.end_id, embedding.num_embeddings
        )
        self.prompt_ids = self.wording.prompt_ids(config.prompt)
        self.num_visual_tokens = adapter.num_query_tokens
        self.sees_slides = True
        self.base_end_ids = base_end_ids(self.language_model)
        forget_generation_defaults(self.language_model)
        for module in self.modules():
            cast(Any, module)._is_hf_initialized = True
        cast(Any, self).post_init()  # untyped in transformers

    @classmethod
    def create(cls, config: CaptionerConfig, *, dtype: torch.dtype = torch.float32) -> Self:
        """Build an untrained captioner around its language model; notes the base's commit and hash in `config`.

        Args:
            config: what to build.
            dtype: of the frozen base; what trains is float32.

        Raises:
            ModelError: the language model cannot be loaded, or its weights are not the ones in `config`.
        """
        base = find_language_model(config.language_model, config.language_model_revision)
        found, expected = base.sha256(), config.language_model_sha256
        if expected is not None and found != expected:
            raise ModelError(
                f"language model {config.language_model!r} has weights {found}, but this report model was trained "
                f"on {expected}; give the same base model"
            )
        loaded = load_language_model(base, dtype=dtype, in_4_bits=config.trains == "lora-4bit")
        config.language_model_revision, config.language_model_sha256 = base.revision, found
        return cls(config, *loaded)

    @classmethod
    def from_blip2(
        cls,
        path_or_id: str | Path,
        *,
        config: CaptionerConfig | None = None,
        kv: Literal["pretrained", "fresh"] = "pretrained",
        revision: str | None = None,
    ) -> Self:
        """Start from a published BLIP-2: its Q-Former, its projection and its language model; see `blip2`."""
        from wsi_mivpg.captioner.blip2 import start_from_blip2  # which builds this class

        return start_from_blip2(cls, str(path_or_id), config or CaptionerConfig(prompt="a photo of"), kv, revision)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        language_model: str | Path | Base | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load what `save_pretrained` wrote, in evaluation mode, trained tensors in float32.

        Args:
            pretrained_model_name_or_path: a folder, "demo" (the package's own), or an id on the Hugging Face hub.
            revision: commit, branch or tag on the hub.
            language_model: where the base model is, if not where the configuration says; or a loaded model and its
                tokenizer. Its weights must be those of the training.
            dtype: of the frozen base.

        Raises:
            ModelError: a file is missing or damaged, or its tensors are not exactly this model's.
        """
        folder = find_model(pretrained_model_name_or_path, revision)
        config = read_config(folder)
        if isinstance(language_model, tuple):
            model = cls(config, *language_model)
        else:
            if language_model is not None:
                config.language_model, config.language_model_revision = str(language_model), None
            model = cls.create(config, dtype=dtype)
        model.load_trained(folder)
        model.train(False)
        return model

    def load_trained(self, folder: Path) -> None:
        """Load the trained tensors of a folder; see `read_trained`."""
        read_trained(self, folder)

    def trained_state(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, by name: adapter, projection, and of the language model's some."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        is_main_process: bool = True,
        **_: Any,
    ) -> None:
        """Write the trained tensors as `dtype` and the configuration; the base model is named, not copied.

        Raises:
            OutputError: the folder cannot be written.
        """
        if is_main_process:
            write_model(self, Path(save_directory), dtype)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of what is trained; what is frozen stays in evaluation mode."""
        super().train(mode)
        set_mode(self.language_model, mode)
        return self

    def gradient_checkpointing_enable(self, *_: Any, **__: Any) -> None:
        """Compute the language model's intermediate results again in backward rather than keep them."""
        recompute_layers(self.language_model, True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep intermediate results for backward."""
        recompute_layers(self.language_model, False)

    def check_bag(self, bag: FeatureBag) -> None:
        """Refuse a bag that was made with other settings than the model was trained on.

        Raises:
            ModelError: naming both values and the way out.
            BagError: the bag does not state a value that the model asks for.
        """
        refuse_other_bags(self.config, bag)

    def read(self, case_id: str, bags: Sequence[FeatureBag]) -> CaseBags:
        """Open a case as this model reads it: whole, or within its `max_instances`; see `inputs.read_case`."""
        return read_case(case_id, bags, self.config.max_instances)

    @contextlib.contextmanager
    def asked(self, prompt: str | None) -> Iterator[None]:
        """Have another prompt stand for the model's own: in writing, scoring and evidence. None changes nothing."""
        own, own_ids = self.config.prompt, self.prompt_ids
        if prompt is not None:
            self.config.prompt, self.prompt_ids = prompt, self.wording.prompt_ids(prompt)
        try:
            yield
        finally:
            self.config.prompt, self.prompt_ids = own, own_ids

    @contextlib.contextmanager
    def text_only(self) -> Iterator[None]:
        """Have the language model write after its prompt alone, without a visual prompt: what it says of no slide."""
        self.sees_slides = False
        try:
            yield
        finally:
            self.sees_slides = True

    def encode_report(self, text: str) -> list[int]:
        """Return a report's token ids with the end token."""
        return self.wording.report_ids(text)

    def visual_prompt(
        self,
        instances: Bag,
        slide_sizes: Sequence[Sequence[int]],
        coords: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """Return what the language model reads of each case, before the prompt.

        Args:
            instances: float, (M_total, feature_dim), packed; an array is read in chunks where the adapter can.
            slide_sizes: per case, its slides' numbers of instances.
            coords: int64 (M_total, 3): column, row, slide; read with PPEG alone.
            output_attentions: also return the weights per layer and case, (heads, R, M_case).
        """
        instances, sizes = self.adapter_inputs(instances, slide_sizes)
        adapted = self.mivpg(instances, sizes, output_attentions=output_attentions, coords=coords)
        return self.language_projection(adapted.visual_prompt), adapted.cross_attentions or ()

    def adapter_inputs(self, instances: Bag, slide_sizes: Sequence[Sequence[int]]) -> tuple[Bag, list[Any]]:
        """Return packed instances and bag sizes as this captioner's adapter reads them; an array where it can."""
        sizes: list[Any] = [[int(size) for size in case] for case in slide_sizes]
        if self.config.adapter != HIERARCHICAL:
            sizes = [sum(case) for case in sizes]
        in_chunks = isinstance(self.mivpg, MivpgModel) and self.mivpg.config.ppeg == "none"
        if isinstance(instances, Tensor) or not in_chunks or torch.is_grad_enabled():
            projection = self.language_projection.weight
            instances = as_tensor(instances).to(projection.device, projection.dtype)
        return instances, sizes

    def forward(
        self,
        instances: Bag,
        slide_sizes: Sequence[Sequence[int]],
        labels: Tensor,
        coords: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> CausalLMOutput | Seq2SeqLMOutput:
        """Compute the cross-entropy per report token (end token included); the prompts are not part of it.

        Args:
            instances: float, (M_total, feature_dim), packed.
            slide_sizes: per case, its slides' numbers of instances.
            labels: int64, (B, T): report token ids, -100 after each report's end.
            coords: int64 (M_total, 3): column, row, slide of each instance; needed with PPEG on the grid alone.
            num_items_in_batch: divide the sum by so many tokens, of a larger batch, rather than by this batch's own.

        Returns:
            loss, and logits float (B, T, vocabulary) at the report's positions only.

        Raises:
            ModelError: a case is empty, sizes do not fit, or the sequence is longer than the language model's.
        """
        visual, _weights = self.visual_prompt(instances, slide_sizes, coords)
        self.check_length(len(self.prompt_ids), labels.shape[1])
        with autocast_to_base(self.language_model):
            prompts, mask = join_prompts(self.language_model, list(visual), [self.prompt_ids] * len(visual))
            logits = report_logits(self.language_model, prompts, mask, labels, self.end_id)
        loss = report_loss(logits, labels, num_items_in_batch)
        output = Seq2SeqLMOutput if self.wording.encoder_decoder else CausalLMOutput
        return output(loss=loss, logits=logits)

    def check_length(self, prompt: int, report: int) -> None:
        """Refuse a prompt and a report of so many tokens where the language model has too few positions.

        Raises:
            ModelError: naming the numbers of tokens and the limit.
        """
        check_length(self.language_model, self.num_visual_tokens, prompt, report)

    def generate(
        self,
        cases: Sequence[CaseBags],
        prompts: Sequence[str] | None = None,
        *,
        samples: int = 1,
        batch_size: int = 8,
        seed: int | None = None,
        streamer: BaseStreamer | None = None,
        **generation: Any,
    ) -> list[Generated]:
        """Write reports; see `generation.generate`."""
        asked = [self.config.prompt] if prompts is None else list(prompts)
        return generate(self, cases, asked, samples, batch_size, seed, streamer, generation)
