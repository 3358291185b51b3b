"""Many reports fast on a GPU: the adapter here, the language model in vLLM, which reads prompt embeddings.

An extra (``pip install 'wsi-mivpg[vllm]'``). It needs CUDA and has not been run in this project's tests; what it shares
with `generation`, visual prompts, settings and flags, has.
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from wsi_mivpg.captioner.generated import Generated
from wsi_mivpg.captioner.generation import Row, end_ids, finished, generation_settings, see
from wsi_mivpg.captioner.inputs import CaseBags
from wsi_mivpg.captioner.model import SlideCaptioner
from wsi_mivpg.captioner.saving import export_language_model
from wsi_mivpg.captioner.sequences import join_prompts
from wsi_mivpg.errors import ModelError

_SAME_NAMES = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
_RENAMED = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens"}


class VllmEngine:
    """A captioner whose language model, with LoRA added in, runs in vLLM.

    Args:
        captioner: decoder-only, in evaluation mode; its own language model stays where it is and embeds prompts.
        engine: arguments of ``vllm.LLM``, such as ``gpu_memory_utilization`` or ``tensor_parallel_size``.

    Raises:
        ModelError: vLLM is not installed, or the language model is an encoder-decoder.
    """

    def __init__(self, captioner: SlideCaptioner, **engine: Any) -> None:
        if captioner.wording.encoder_decoder:
            raise ModelError("vLLM reads prompt embeddings in decoder-only models alone; use captioner.generate")
        if importlib.util.find_spec("vllm") is None:
            raise ModelError("vLLM is not installed; pip install 'wsi-mivpg[vllm]', or use captioner.generate")
        import vllm

        self.captioner = captioner
        self._folder = tempfile.TemporaryDirectory(prefix="wsi-mivpg-vllm-")
        export_language_model(captioner, Path(self._folder.name))
        self._llm = vllm.LLM(model=self._folder.name, enable_prompt_embeds=True, **engine)

    @torch.no_grad()
    def generate(
        self,
        cases: Sequence[CaseBags],
        prompts: Sequence[str] | None = None,
        *,
        samples: int = 1,
        seed: int | None = None,
        **generation: Any,
    ) -> list[Generated]:
        """Write reports as `SlideCaptioner.generate` does; vLLM puts batches together itself.

        Raises:
            ModelError: a setting that vLLM does not have, or a case that does not fit the model.
        """
        import vllm

        captioner = self.captioner
        settings = generation_settings(captioner, generation)
        asked = [captioner.config.prompt] if prompts is None else list(prompts)
        rows = [
            Row(seen, prompt, captioner.wording.prompt_ids(prompt), 0)
            for seen in (see(captioner, case) for case in cases)
            for prompt in asked
        ]
        embeddings = [join_prompts(captioner.language_model, [row.seen.visual], [row.prompt_ids])[0][0] for row in rows]
        parameters = vllm.SamplingParams(**sampling_parameters(settings, end_ids(captioner), samples, seed))
        outputs = self._llm.generate([{"prompt_embeds": one.cpu()} for one in embeddings], parameters)
        limit = int(settings["max_new_tokens"])
        return [
            finished(captioner, Row(row.seen, row.prompt, row.prompt_ids, sample), ids, logprobs, limit)
            for row, output in zip(rows, outputs, strict=True)
            for sample, (ids, logprobs) in enumerate(map(_tokens, output.outputs))
        ]


def sampling_parameters(settings: dict[str, Any], ends: list[int], samples: int, seed: int | None) -> dict[str, Any]:
    """Return the arguments of ``vllm.SamplingParams`` that mean what Hugging Face's `settings` mean.

    Raises:
        ModelError: a setting that vLLM does not have, or several samples without sampling.
    """
    known = {*_SAME_NAMES, *_RENAMED, "do_sample", "eos_token_id", "num_beams"}
    refused = [name for name, value in settings.items() if name not in known and value is not None]
    if refused or (settings.get("num_beams") or 1) > 1:
        raise ModelError(f"vLLM does not have {refused[0] if refused else 'num_beams'}; use captioner.generate")
    if samples > 1 and not settings["do_sample"]:
        raise ModelError(f"{samples} samples of a case would all be the same; set do_sample=True")
    given = {name: settings[name] for name in _SAME_NAMES if settings.get(name) is not None}
    given |= {theirs: int(settings[ours]) for ours, theirs in _RENAMED.items() if settings.get(ours) is not None}
    if not settings["do_sample"]:
        given["temperature"] = 0.0
    return {**given, "n": samples, "seed": seed, "logprobs": 0, "stop_token_ids": ends}


def _tokens(output: Any) -> tuple[list[int], torch.Tensor]:
    """Return the ids and log-probabilities (T,) of what vLLM wrote."""
    ids = list(output.token_ids)
    return ids, torch.tensor([step[token].logprob for token, step in zip(ids, output.logprobs, strict=True)])
