"""Writes reports: each case is seen once, then written about as often as asked, many rows at a time.

What a row says depends on its case, prompt, sample and seed alone, never on which rows are written beside it.
"""

import difflib
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from wsi_mivpg.captioner.decoding import Draw, RefuseNaN, sampling_processors, unpenalised_prompt
from wsi_mivpg.captioner.generated import Generated, repeats
from wsi_mivpg.captioner.inputs import CaseBags, pack
from wsi_mivpg.captioner.sequences import join_prompts
from wsi_mivpg.captioner.trainable import autocast_to_base
from wsi_mivpg.errors import ModelError

if TYPE_CHECKING:
    from wsi_mivpg.captioner.model import SlideCaptioner

_INSTEAD = {"max_length": "max_new_tokens", "min_length": "min_new_tokens", "num_return_sequences": "samples"}
_OURS = {"return_dict_in_generate": True, "output_logits": True}


@dataclass(frozen=True, eq=False)
class Seen:
    """A case after the adapter: its visual prompt (R, width), of no row in `text_only`; attention (M,) on the CPU."""

    case_id: str
    visual: Tensor
    attention: Tensor


@dataclass(frozen=True, eq=False)
class Row:
    """One report to write."""

    seen: Seen
    prompt: str
    prompt_ids: list[int]
    sample: int


@torch.no_grad()
def generate(
    captioner: "SlideCaptioner",
    cases: Sequence[CaseBags],
    prompts: Sequence[str],
    samples: int,
    batch_size: int,
    seed: int | None,
    streamer: BaseStreamer | None,
    generation: dict[str, Any],
) -> list[Generated]:
    """Write one report per case, prompt and sample, in this order.

    Rows of prompts of one length are written together, so that most batches need no padding. All written tokens'
    logits are held until a batch is done: rows x tokens x vocabulary numbers, which `batch_size` limits.

    Args:
        captioner: in evaluation mode.
        cases: what to write about; each is read once, whole.
        prompts: what to ask of each.
        samples: reports per case and prompt; more than one needs ``do_sample=True``.
        batch_size: rows at a time; with beams, so many times the beams.
        seed: of sampling. ``None`` takes one from torch's generator.
        streamer: is told each token as it is written; rows are then written one after another.
        generation: names of Hugging Face's ``GenerationConfig``; greedy unless they, or the model's own
            configuration, say otherwise.

    Raises:
        ModelError: training mode, an unknown or contradictory setting, a case that does not fit the model, a sequence
            longer than the language model's, or a model that computes NaN.
    """
    if captioner.training:
        raise ModelError("generate needs evaluation mode; call .eval() first")
    if samples < 1 or batch_size < 1:
        raise ModelError(f"samples is {samples} and batch_size {batch_size}; both must be at least 1")
    settings = generation_settings(captioner, generation)
    if samples > 1 and not settings["do_sample"]:
        raise ModelError(f"{samples} samples of a case would all be the same; set do_sample=True")
    if seed is None:
        seed = int(torch.randint(2**31, ()))
    wordings = [(prompt, captioner.wording.prompt_ids(prompt)) for prompt in prompts]
    for _, ids in wordings:
        captioner.check_length(len(ids), int(settings["max_new_tokens"]))
    rows = [
        Row(seen, prompt, ids, sample)
        for seen in (see(captioner, case) for case in cases)
        for prompt, ids in wordings
        for sample in range(samples)
    ]
    if not rows:
        return []
    order = range(len(rows)) if streamer else sorted(range(len(rows)), key=lambda place: len(rows[place].prompt_ids))
    written: dict[int, Generated] = {}
    for places in torch.tensor(order, dtype=torch.long).split(1 if streamer else batch_size):
        batch = [rows[place] for place in places.tolist()]
        written.update(zip(places.tolist(), _write(captioner, batch, settings, seed, streamer), strict=True))
    return [written[place] for place in range(len(rows))]


def generation_settings(captioner: "SlideCaptioner", given: dict[str, Any]) -> dict[str, Any]:
    """Return what decides how reports are written, from the model's configuration and what the caller asks.

    The base's own ``generation_config.json`` decides nothing: it often samples, or penalises, unasked.

    Raises:
        ModelError: a name is not Hugging Face's, or one of this package goes in its place.
    """
    known = [name for name in vars(GenerationConfig()) if not name.startswith("_")]
    for name in (*captioner.config.generation, *given):
        if name in _INSTEAD:
            raise ModelError(
                f"generation: give {_INSTEAD[name]} instead of {name}, which would count the visual prompt or the rows"
            )
        if name not in known or name in _OURS:
            near = difflib.get_close_matches(name, known, 1)
            raise ModelError(f"generation: {name!r} is unknown{f'; did you mean {near[0]!r}?' if near else ''}")
    if "eos_token_id" in given:
        raise ModelError("generation: eos_token_id belongs to the model, which was taught it; set config.generation")
    first = {"max_new_tokens": captioner.config.max_new_tokens, "do_sample": False}
    return {**first, **captioner.config.generation, **given}


def see(captioner: "SlideCaptioner", case: CaseBags) -> Seen:
    """Let the adapter read a case.

    Raises:
        ModelError: the case does not fit the model.
    """
    try:
        visual, layers = captioner.visual_prompt(**pack([case], mapped=True), output_attentions=True)
    except ModelError as error:
        raise ModelError(f"case {case.case_id!r}: {error}") from error
    attention = cast(Tensor, sum(layer[0].float().mean(dim=(0, 1)) for layer in layers))
    shown = visual[0] if captioner.sees_slides else visual[0][:0]
    return Seen(case.case_id, shown, (attention / attention.sum()).cpu())


def finished(captioner: "SlideCaptioner", row: Row, ids: list[int], logprobs: Tensor, limit: int) -> Generated:
    """Cut at the first end token and look at what was written.

    Args:
        captioner: the model.
        row: what was asked.
        ids: T tokens.
        logprobs: (T,).
        limit: most tokens that were allowed.
    """
    ends = end_ids(captioner)
    length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    kept = ids[: length + 1]
    chosen = logprobs[: len(kept)].float().cpu()
    cut = length == len(ids) and length >= limit
    text = cast(str, captioner.tokenizer.decode(ids[:length], skip_special_tokens=True)).strip()
    found = {"empty": not text, "runaway": cut, "repetition": repeats(ids[:length])}
    return Generated(
        row.seen.case_id,
        row.prompt,
        row.sample,
        text,
        tuple(kept),
        chosen,
        float(chosen.mean()),
        row.seen.attention,
        cut,
        tuple(flag for flag, applies in found.items() if applies),
    )


def end_ids(captioner: "SlideCaptioner") -> list[int]:
    """Return the tokens that end a report: the one taught, and the special ones that the base ends its turns with."""
    base = captioner.base_end_ids
    special = set(captioner.tokenizer.all_special_ids) | set(captioner.tokenizer.added_tokens_decoder)
    configured = captioner.config.generation.get("eos_token_id", [])
    more = configured if isinstance(configured, list) else [configured]
    return sorted({captioner.end_id, *more, *(token for token in base if token in special)})


def base_end_ids(language_model: PreTrainedModel) -> list[int]:
    """Return the tokens that end a text by the base's own ``generation_config.json``."""
    ends = getattr(language_model.generation_config, "eos_token_id", None)
    return [] if ends is None else list(ends) if isinstance(ends, list) else [int(ends)]


def forget_generation_defaults(language_model: PreTrainedModel) -> None:
    """Keep of the base's ``generation_config.json`` how a decoder starts, and nothing of how it chooses words."""
    base = language_model.generation_config
    kept = ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id")
    language_model.generation_config = GenerationConfig(**{name: getattr(base, name, None) for name in kept})


def _write(
    captioner: "SlideCaptioner", rows: list[Row], settings: dict[str, Any], seed: int, streamer: BaseStreamer | None
) -> list[Generated]:
    """Write one batch of rows."""
    model = cast(Any, captioner.language_model)
    config, processors = _decoding(captioner, rows, settings, seed)
    with autocast_to_base(captioner.language_model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*only to newly generated tokens.*")  # which is what is meant
        embeddings, mask = join_prompts(
            captioner.language_model, [row.seen.visual for row in rows], [row.prompt_ids for row in rows]
        )
        try:
            written = model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList(processors),
                streamer=streamer,
            )
        except ValueError as error:
            raise ModelError(f"generation: {error}") from error
    logprobs = model.compute_transition_scores(
        written.sequences, written.logits, getattr(written, "beam_indices", None), normalize_logits=True
    )
    first = 1 if captioner.wording.encoder_decoder else 0  # a decoder's start token is not written
    limit = int(settings["max_new_tokens"])
    return [
        finished(captioner, row, ids.tolist(), scores, limit)
        for row, ids, scores in zip(rows, written.sequences[:, first:], logprobs, strict=True)
    ]


def _decoding(
    captioner: "SlideCaptioner", rows: list[Row], settings: dict[str, Any], seed: int
) -> tuple[GenerationConfig, list[LogitsProcessor]]:
    """Return Hugging Face's configuration and the processors that follow its own."""
    others = dict(settings)
    beams = int(others.get("num_beams") or 1)
    processors: list[LogitsProcessor] = [RefuseNaN([row.seen.case_id for row in rows], beams)]
    processors += unpenalised_prompt(others)
    if others.pop("do_sample"):
        if beams > 1:
            raise ModelError(f"do_sample with num_beams={beams}: choose one of them")
        processors += sampling_processors(others)
        processors.append(Draw([_row_seed(seed, row) for row in rows]))
    pad = captioner.tokenizer.pad_token_id
    own = {"eos_token_id": end_ids(captioner), "pad_token_id": captioner.end_id if pad is None else pad}
    try:
        return GenerationConfig(**{**others, **own, **_OURS, "do_sample": False}), processors
    except (ValueError, TypeError) as error:
        raise ModelError(f"generation: {error}") from error


def _row_seed(seed: int, row: Row) -> int:
    text = "\0".join([str(seed), row.seen.case_id, row.prompt, str(row.sample)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
