"""vLLM itself needs CUDA; what is asked of it, and what it cannot do, is known without."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_captioner import tiny_config
from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.captioner.vllm_engine import VllmEngine, sampling_parameters
from wsi_mivpg.errors import ModelError

GREEDY = {"do_sample": False, "max_new_tokens": 20}


def test_settings_are_translated() -> None:
    assert sampling_parameters({**GREEDY, "min_new_tokens": 3, "repetition_penalty": 1.2}, [2, 5], 1, None) == {
        "temperature": 0.0,
        "max_tokens": 20,
        "min_tokens": 3,
        "repetition_penalty": 1.2,
        "n": 1,
        "seed": None,
        "logprobs": 0,
        "stop_token_ids": [2, 5],
    }
    drawn = sampling_parameters({"do_sample": True, "top_p": 0.9, "temperature": 0.7, "max_new_tokens": 5}, [2], 4, 7)
    assert (drawn["n"], drawn["seed"], drawn["top_p"], drawn["temperature"]) == (4, 7, 0.9, 0.7)


@pytest.mark.parametrize(
    ("settings", "samples", "complaint"),
    [
        ({"no_repeat_ngram_size": 3}, 1, "no_repeat_ngram_size"),
        ({"num_beams": 2}, 1, "num_beams"),
        ({}, 2, "2 samples"),
    ],
)
def test_what_vllm_does_not_have_is_refused(settings: dict[str, Any], samples: int, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        sampling_parameters({**GREEDY, **settings}, [2], samples, None)


def test_an_encoder_decoder_and_a_missing_installation_are_refused(tiny_base_of: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="decoder-only models alone"):
        VllmEngine(SlideCaptioner.create(tiny_config(tiny_base_of("flan-t5"))).eval())
    if importlib.util.find_spec("vllm") is None:
        with pytest.raises(ModelError, match=r"pip install 'wsi-mivpg\[vllm\]'"):
            VllmEngine(SlideCaptioner.create(tiny_config(tiny_base_of("llama"))).eval())
