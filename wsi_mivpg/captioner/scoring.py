"""How likely a report is after given visual prompts, and what the language model read of these as it scored it.

The report is given, token by token (teacher forcing); nothing is written.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wsi_mivpg.captioner.inputs import CaseBags, pack
from wsi_mivpg.captioner.sequences import embed, join_prompts, report_logits
from wsi_mivpg.captioner.trainable import autocast_to_base
from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg.rollout import rollout

if TYPE_CHECKING:
    from wsi_mivpg.captioner.model import SlideCaptioner


def report_logprobs(
    captioner: "SlideCaptioner", visual: Tensor, token_ids: Sequence[int], prompt: str | None = None
) -> Tensor:
    """Return the log-probability of each token of one report after each visual prompt; gradients flow.

    Args:
        captioner: in evaluation mode.
        visual: float (B, R, width), as `SlideCaptioner.visual_prompt` gives them.
        token_ids: T tokens, of which each is given the ones before it.
        prompt: what was asked; ``None``: the model's own prompt.

    Returns:
        float32 (B, T), natural logarithm.

    Raises:
        ModelError: there is no token, or the sequence is longer than the language model's.
    """
    model = captioner.language_model
    prompt_ids = _checked_prompt(captioner, token_ids, prompt)
    labels = torch.tensor([list(token_ids)] * len(visual), dtype=torch.long, device=visual.device)
    with autocast_to_base(model):
        prompts, mask = join_prompts(model, list(visual), [prompt_ids] * len(visual))
        logits = report_logits(model, prompts, mask, labels, captioner.end_id).float()
    chosen = logits.gather(-1, labels[..., None])[..., 0]
    return chosen - logits.logsumexp(-1)


@torch.no_grad()
def report_attention(
    captioner: "SlideCaptioner", visual: Tensor, token_ids: Sequence[int], prompt: str | None = None
) -> Tensor:
    """Return how much the language model read each visual token as it gave each token of a report its probability.

    It is the mean over layers and heads of the attention to the R visual rows: of a decoder, from the place that each
    token is told from; of an encoder-decoder, from the decoder to the encoder's rows. Attention is not rolled out over
    the layers of the language model: its first row, where attention rests that nothing needs, would take all of it.

    Args:
        captioner: in evaluation mode; SDPA is exchanged for explicit attention for this pass.
        visual: float (R, width).
        token_ids: T tokens.
        prompt: what was asked; ``None``: the model's own prompt.

    Returns:
        float32 (T, R); a row sums to at most 1.

    Raises:
        ModelError: there is no token, the sequence is too long, or the language model gives no attention away.
    """
    model = captioner.language_model
    prompt_ids = _checked_prompt(captioner, token_ids, prompt)
    labels = torch.tensor([list(token_ids)], dtype=torch.long, device=visual.device)
    with explicit_attention(model), autocast_to_base(model):
        prompts, mask = join_prompts(model, [visual], [prompt_ids])
        if model.config.is_encoder_decoder:
            shifted = cast(Any, model).prepare_decoder_input_ids_from_labels(labels)
            inputs: dict[str, Any] = {"inputs_embeds": prompts, "attention_mask": mask, "decoder_input_ids": shifted}
        else:
            inputs = {"inputs_embeds": torch.cat([prompts, embed(model, labels[:, :-1])], dim=1)}
        output = model(**inputs, use_cache=False, output_attentions=True)
    layers = output.cross_attentions if model.config.is_encoder_decoder else output.attentions
    if not layers or any(layer is None for layer in layers):
        raise ModelError(
            f"the language model {captioner.config.language_model!r} does not tell its attention; weigh tiles with "
            "'gradient' or 'leave-out'"
        )
    mean = torch.stack([layer[0].float().mean(dim=0) for layer in layers]).mean(dim=0)
    return mean[-len(token_ids) :, : len(visual)]


@torch.no_grad()
def visual_rollout(captioner: "SlideCaptioner", case: CaseBags) -> tuple[Tensor, Tensor]:
    """Return a case's visual prompt (R, width), and how much each of its tokens rests on each instance, float (R, M).

    Raises:
        ModelError: the case does not fit the model, or its adapter does not tell what it reads.
    """
    packed = pack([case], mapped=True)
    instances, sizes = captioner.adapter_inputs(packed["instances"], packed["slide_sizes"])
    prompt, weights = rollout(captioner.mivpg, instances, sizes, packed["coords"])
    return captioner.language_projection(prompt), weights


@contextlib.contextmanager
def explicit_attention(language_model: PreTrainedModel) -> Iterator[None]:
    """Let a loaded model compute its attention weights, which fused kernels such as SDPA never hold."""
    model = cast(Any, language_model)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _checked_prompt(captioner: "SlideCaptioner", token_ids: Sequence[int], prompt: str | None) -> list[int]:
    if not token_ids:
        raise ModelError("there is no token to score; give at least one")
    ids = captioner.prompt_ids if prompt is None else captioner.wording.prompt_ids(prompt)
    captioner.check_length(len(ids), len(token_ids))
    return ids
