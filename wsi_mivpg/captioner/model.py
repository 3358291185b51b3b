"""SlideCaptioner: visual prompt ++ instruction ++ report, in one sequence of a frozen language model.

Only the adapter, the projection and LoRA are trained, saved and loaded; the base comes from `language_models`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import peft
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutput

from wsi_mivpg.atomic import replaced, write_text
from wsi_mivpg.bags import CONTRACT, FeatureBag, agree, require_contract
from wsi_mivpg.captioner.configuration import CaptionerConfig
from wsi_mivpg.captioner.language_models import language_model_sha256, load_language_model
from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, MivpgModel

IGNORED = -100
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Generated:
    """One report.

    Attributes:
        text: the report.
        attention: float32 (M,), sums to 1: how much each instance was read, the mean over heads, queries and
            cross-attention layers. A hint at where the model looked, not a proof of why it wrote what it wrote.
        hit_length_limit: the text was cut at `max_new_tokens`.
        mean_logprob: mean natural log-probability of the written tokens.
    """

    text: str
    attention: Tensor
    hit_length_limit: bool
    mean_logprob: float


class SlideCaptioner(PreTrainedModel):
    """MIVPG adapter, a linear projection, and a causal language model with optional LoRA."""

    config_class = CaptionerConfig
    base_model_prefix = "captioner"
    main_input_name = "instances"
    config: CaptionerConfig

    def __init__(
        self, config: CaptionerConfig, language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(config)
        self.tokenizer = tokenizer
        self.mivpg = MivpgModel(MivpgConfig(**config.mivpg))
        embedding = cast(nn.Embedding, language_model.get_input_embeddings())
        self.language_projection = nn.Linear(self.mivpg.config.hidden_size, embedding.embedding_dim)
        _start_like_tokens(self.language_projection, embedding.weight)
        self.language_model = _with_lora(language_model, config.lora)
        self.prompt_ids: list[int] = tokenizer(chat_prompt(config.prompt), add_special_tokens=False)["input_ids"]
        self.end_id = int(cast(int, tokenizer.eos_token_id))
        for module in self.modules():
            cast(Any, module)._is_hf_initialized = True
        cast(Any, self).post_init()  # untyped in transformers

    @classmethod
    def create(cls, config: CaptionerConfig) -> Self:
        """Build an untrained captioner around its language model; notes the base's hash in `config`.

        Raises:
            ModelError: the language model cannot be loaded, or its weights are not the ones in `config`.
        """
        found = language_model_sha256(config.language_model)
        expected = config.language_model_sha256
        if expected is not None and found != expected:
            raise ModelError(
                f"language model {config.language_model!r} has weights {found}, but this report model was trained "
                f"on {expected}; give the same base model"
            )
        language_model, tokenizer = load_language_model(config.language_model)
        config.language_model_sha256 = found
        return cls(config, language_model, tokenizer)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        language_model: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
    ) -> Self:
        """Load a folder that `save_pretrained` wrote, in evaluation mode, trained tensors in float32.

        Args:
            pretrained_model_name_or_path: the folder.
            language_model: a base model and tokenizer to use instead of loading the one that the folder names.

        Raises:
            ModelError: a file is missing or damaged, or its tensors are not exactly this model's.
        """
        folder = Path(pretrained_model_name_or_path)
        config = read_config(folder)
        model = cls(config, *language_model) if language_model else cls.create(config)
        model.load_trained(folder)
        model.train(False)
        return model

    def load_trained(self, folder: Path) -> None:
        """Load the trained tensors of a folder; the set of keys and every shape must match exactly.

        Raises:
            ModelError: the file is missing or damaged, or tensors are missing, unexpected, or of another shape.
        """
        file = folder / WEIGHTS_FILE
        try:
            loaded = safetensors.torch.load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot read {file}: {error}; copy the model folder again") from error
        own = self.trained_state()
        missing, unexpected = sorted(own.keys() - loaded.keys()), sorted(loaded.keys() - own.keys())
        wrong = sorted(key for key in own.keys() & loaded.keys() if own[key].shape != loaded[key].shape)
        if missing or unexpected or wrong:
            raise ModelError(
                f"{file} does not fit its {CONFIG_FILE}: missing {missing}, unexpected {unexpected}, "
                f"other shape {wrong}; copy both files from the same training"
            )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(loaded[key])

    def trained_state(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, by name: adapter, projection, LoRA."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        is_main_process: bool = True,
        **_: Any,
    ) -> None:
        """Write the trained tensors as `dtype` and the configuration; the base model is not copied.

        Raises:
            OutputError: the folder cannot be written.
        """
        if not is_main_process:
            return
        folder = Path(save_directory)
        tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in self.trained_state().items()}
        with replaced(folder / WEIGHTS_FILE) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
        write_text(folder / CONFIG_FILE, self.config.to_json_string())

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of what is trained; the frozen base stays in evaluation mode."""
        super().train(mode)
        self.language_model.eval()
        for name, module in self.language_model.named_modules():
            if "lora_" in name:
                module.train(mode)
        return self

    def check_bag(self, bag: FeatureBag) -> None:
        """Refuse a bag that was made with other settings than the model was trained on.

        Raises:
            ModelError: naming both values and the way out.
            BagError: the bag does not state a value that the model asks for.
        """
        asked = tuple(name for name in CONTRACT if getattr(self.config, name) is not None)
        for name in asked:
            expected, found = getattr(self.config, name), getattr(bag, name)
            if found is not None and not agree(expected, found):
                raise ModelError(
                    f"bag of slide {bag.slide_id!r} has {name} {found!r}, but this model was trained on "
                    f"{expected!r}; extract the slide again with the model's encoder, "
                    f"{self.config.encoder!r} at {self.config.target_mpp} µm per pixel"
                )
        require_contract(bag, asked)

    def encode_report(self, text: str) -> list[int]:
        """Return a report's token ids with the end token."""
        ids: list[int] = self.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        return [*ids, self.end_id]

    def forward(
        self,
        instances: Tensor,
        bag_sizes: Sequence[int] | Tensor,
        reports: Sequence[str] | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """Compute the mean cross-entropy per report token (end token included).

        Args:
            instances: float, (M_total, feature_dim), packed.
            bag_sizes: B positive integers that sum to M_total.
            reports: B texts; or give `labels`.
            labels: int64, (B, T): report token ids, -100 after each report's end.

        Returns:
            loss, and logits float (B, T, vocabulary) at the report's positions only.

        Raises:
            ModelError: neither or both of reports and labels, or a bag is empty.
        """
        if (reports is None) == (labels is None):
            raise ModelError("give either reports or labels")
        if labels is None:
            labels = pad_labels([self.encode_report(text) for text in cast(Sequence[str], reports)]).to(self.device)
        prefix, _weights = self._prefix(instances, bag_sizes, output_attentions=False)
        inputs = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, self.end_id)
        # Reports end where they end: what follows is causal and ignored, so that no attention mask is needed.
        sequence = torch.cat([prefix, self._embed(inputs)], dim=1)
        logits = self.language_model(
            inputs_embeds=sequence, logits_to_keep=labels.shape[1], use_cache=False, return_dict=True
        ).logits
        loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
        return CausalLMOutput(loss=loss, logits=logits)

    @torch.inference_mode()
    def generate(self, bags: Sequence[Tensor], **generation: Any) -> list[Generated]:
        """Write one report per bag; greedy unless `generation` (arguments of Hugging Face's generate) says otherwise.

        Prefixes have one length, so that a batch needs no padding and writes what one-by-one calls write.

        Args:
            bags: float, (M, feature_dim) each; any float dtype.

        Raises:
            ModelError: no bag, an empty bag, or another feature width.
        """
        if self.training:
            raise ModelError("generate needs evaluation mode; call .eval() first")
        limit = int(generation.pop("max_new_tokens", self.config.max_new_tokens))
        if not bags:
            return []
        instances = torch.cat([bag.to(self.device, self.language_projection.weight.dtype) for bag in bags])
        prefix, weights = self._prefix(instances, [len(bag) for bag in bags], output_attentions=True)
        written = cast(Any, self.language_model).generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
            max_new_tokens=limit,
            eos_token_id=self.end_id,
            pad_token_id=self.end_id,
            return_dict_in_generate=True,
            output_logits=True,
            **{"do_sample": False, **generation},
        )
        logprobs = self._logprobs(written)
        layers = tuple(zip(*weights, strict=True))
        return [
            self._generated(ids.tolist(), row, torch.stack(bag_layers))
            for ids, row, bag_layers in zip(written.sequences, logprobs, layers, strict=True)
        ]

    def _logprobs(self, written: Any) -> Tensor:
        """Log-probabilities (B, T) of the written tokens; of each row's own beam with beam search."""
        beams = getattr(written, "beam_indices", None)
        scores: Tensor = cast(Any, self.language_model).compute_transition_scores(
            written.sequences, written.logits, beams, normalize_logits=True
        )
        return scores.float()

    def _generated(self, ids: list[int], logprobs: Tensor, weights: Tensor) -> Generated:
        """Cut at the end token; weights (layers, heads, R, M) -> attention (M,)."""
        ended = self.end_id in ids
        length = ids.index(self.end_id) if ended else len(ids)
        counted = min(length + 1, len(logprobs)) if ended else len(logprobs)
        attention = weights.float().mean(dim=(0, 1, 2))
        text = cast(str, self.tokenizer.decode(ids[:length], skip_special_tokens=True)).strip()
        mean_logprob = float(logprobs[:counted].mean())
        return Generated(text, (attention / attention.sum()).cpu(), not ended, mean_logprob)

    def _prefix(
        self, instances: Tensor, bag_sizes: Sequence[int] | Tensor, output_attentions: bool
    ) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        """Return visual prompt ++ instruction as embeddings (B, R + P, width), and the attention weights."""
        adapted = self.mivpg(instances, bag_sizes, output_attentions=output_attentions)
        visual = self.language_projection(adapted.visual_prompt)
        prompt = self._embed(torch.tensor([self.prompt_ids], device=visual.device))
        prefix = torch.cat([visual.to(prompt.dtype), prompt.expand(len(visual), -1, -1)], dim=1)
        return prefix, adapted.cross_attentions or ()

    def _embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = cast(Any, self.language_model).get_input_embeddings()(ids)
        return embedded


def chat_prompt(prompt: str) -> str:
    """Return the instruction as a user's turn, followed by the start of the assistant's."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def pad_labels(token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Return int64 (B, T) token ids, -100 after each row's end."""
    rows = [torch.tensor(ids, dtype=torch.long) for ids in token_ids]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)


def read_config(folder: Path) -> CaptionerConfig:
    """Read a model folder's configuration without loading weights.

    Raises:
        ModelError: the file is missing or is not a report model's.
    """
    file = folder / CONFIG_FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}; give a folder that `wsi-mivpg train` wrote") from error
    if not isinstance(settings, dict) or settings.get("model_type") != CaptionerConfig.model_type:
        raise ModelError(f"{file} is not the configuration of a report model; give a folder that `train` wrote")
    return CaptionerConfig(**settings)


def _start_like_tokens(projection: nn.Linear, embeddings: Tensor) -> None:
    """Initialise so that prompt tokens, made of layer-normed queries, are as long as token embeddings."""
    mean_norm = float(embeddings.detach().float().norm(dim=1).mean())
    with torch.no_grad():
        nn.init.normal_(projection.weight, std=mean_norm / (projection.in_features * projection.out_features) ** 0.5)
        nn.init.zeros_(projection.bias)


def _with_lora(language_model: PreTrainedModel, lora: dict[str, Any] | None) -> PreTrainedModel:
    """Freeze the base and put LoRA matrices into it if asked."""
    language_model.requires_grad_(False)
    if lora is None:
        return language_model
    known = {"r", "alpha", "dropout", "target_modules"}
    if unknown := sorted(lora.keys() - known):
        raise ModelError(f"lora has unknown settings {unknown}; known are {sorted(known)}")
    settings = peft.LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["target_modules"],
    )
    try:
        return cast(PreTrainedModel, peft.inject_adapter_in_model(settings, language_model))
    except ValueError as error:
        raise ModelError(f"lora: {error}; name linear layers of the language model") from error
