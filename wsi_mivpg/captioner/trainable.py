"""Which weights of the language model train, in which mode and precision they are, and how LoRA becomes plain weights.

It changes a language model in place; it knows no bags and no sequences.
"""

import contextlib
import functools
from typing import Any, cast

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from wsi_mivpg.captioner.configuration import CaptionerConfig
from wsi_mivpg.errors import ModelError

_BASE = ".base_layer"


def make_trainable(language_model: PreTrainedModel, config: CaptionerConfig) -> PreTrainedModel:
    """Freeze the language model and put LoRA matrices into it, or let all of it train, as `config` says.

    What trains is float32.

    Raises:
        ModelError: LoRA's `target_modules` are no linear layers of this model.
    """
    language_model.requires_grad_(config.trains == "full")
    if config.trains == "full":
        return cast(PreTrainedModel, language_model.float())
    if config.lora is None:
        return language_model
    settings = peft.LoraConfig(
        r=config.lora["r"],
        lora_alpha=config.lora["alpha"],
        lora_dropout=config.lora["dropout"],
        target_modules=config.lora["target_modules"],
    )
    try:
        changed = cast(PreTrainedModel, peft.inject_adapter_in_model(settings, language_model))
    except ValueError as error:
        raise ModelError(
            f"lora: {error}; set target_modules to 'all-linear', or name linear layers of the language model"
        ) from error
    for parameter in changed.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return changed


def set_mode(language_model: PreTrainedModel, training: bool) -> None:
    """Set the mode of what trains; frozen parts stay in evaluation mode, without dropout."""
    if all(parameter.requires_grad for parameter in language_model.parameters()):
        language_model.train(training)
        return
    language_model.eval()
    for module in language_model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout.train(training)


def hold_frozen_in(language_model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Hold frozen matrices in `dtype`, so that autocast does not convert them at every step.

    Vectors, which are the layer norms and the biases, stay float32 as what trains does.
    """
    for parameter in language_model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype if parameter.ndim > 1 else torch.float32)


def autocast_to_base(language_model: PreTrainedModel) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which a base that is held in half precision meets float32 inputs; else an empty one."""
    embeddings = cast(nn.Embedding, language_model.get_input_embeddings()).weight
    if embeddings.dtype == torch.float32 or torch.is_autocast_enabled(embeddings.device.type):
        return contextlib.nullcontext()
    return torch.autocast(embeddings.device.type, dtype=embeddings.dtype)


def recompute_layers(language_model: PreTrainedModel, enabled: bool) -> None:
    """Let the layers' intermediate results be computed again in backward rather than kept.

    transformers does so in training mode alone, which the frozen base is never in.
    """
    for layer in language_model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            vars(layer).pop("forward", None)
            if enabled:
                layer.forward = functools.partial(_recomputed, layer.forward)


def merged_state(language_model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights with LoRA added in, under the names that the model has without LoRA.

    Raises:
        ModelError: the base is held in 4 bits.
    """
    updates: dict[str, Tensor] = {}
    for name, layer in language_model.named_modules():
        if isinstance(layer, LoraLayer):
            module = cast(Any, layer)
            if not module.get_base_layer().weight.is_floating_point():
                raise ModelError("LoRA cannot be added to a base in 4 bits; load the model with trains='lora'")
            updates[f"{name}.weight"] = module.get_delta_weight("default")
    merged = {}
    for name, tensor in language_model.state_dict().items():
        plain = name.replace(_BASE, "")
        if ".lora_" not in name:
            update = updates.get(plain)
            merged[plain] = tensor if update is None else (tensor.float() + update.to(tensor.device)).to(tensor.dtype)
    return merged


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
